"""What makes recordings whole: official minutes from the feed's history, and the loss budget."""

# No postponed annotations here: Dagster reads the class of a resource parameter, not its name.
import dagster as dg

from lakehouse_pipeline.defs.partitions import parts_of
from lakehouse_pipeline.defs.resources import LakehouseResource, SettingsResource
from lakehouse_pipeline.errors import FeedError
from lakehouse_pipeline.market import columns

from .catalogue import built, key
from .slices import days, exchanges, show, tell

# A round of questions is paced and takes minutes: it must hold no place of those who build.
POOL = "fetch"


def repair_assets(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetsDefinition]:
    @built(
        "market.history_1m",
        columns.HISTORY,
        partitions,
        deps=["market.gaps", "raw.coverage"],
        pool=POOL,
    )
    def history_1m(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource, settings: SettingsResource
    ) -> None:
        """Official one-minute bars of gaps and finished days, as far back as the feed reaches.

        Whatever days are asked for, the whole reach is looked through: what is left out falls out
        of reach. The next tick merges new minutes into the bars.
        """
        from lakehouse_pipeline.build.history import repair  # noqa: PLC0415  # polars and pyiceberg

        newest = {part.exchange: part for part in parts_of(context)}
        failures = []
        with lakehouse.open() as lake:
            for exchange, seen in exchanges(context, lake):
                try:
                    done = repair(lake, settings.load(), exchange, watermark=seen)
                except FeedError as error:
                    context.log.error("%s: %s", exchange, error)  # noqa: TRY400  # the message says all
                    failures.append(f"{exchange}: {error}")
                    continue
                told = {
                    "symbols_asked": done.asked,
                    "symbols_refused": done.refused,
                    "symbols_silent": done.silent,
                    "rows": done.bars,
                }
                context.add_asset_metadata(told, partition_key=newest[exchange].key)
                part = newest[exchange].key
                context.log_event(
                    dg.AssetMaterialization(
                        key("raw.fetches"), partition=part, metadata={"symbols": done.asked}
                    )
                )
        if failures:
            raise dg.Failure(" ".join(failures))

    @built(
        "market.reconciliation",
        columns.RECONCILIATION,
        partitions,
        deps=["market.bars_1m", "market.history_1m", "market.gaps"],
        pool=POOL,
    )
    def reconciliation(
        context: dg.AssetExecutionContext, lakehouse: LakehouseResource, settings: SettingsResource
    ) -> None:
        """The loss budget of each symbol and day, and of each gap.

        Seconds observed, filled and lost; what was filled against what was missed; and how the
        streamed minutes agree with the official ones.
        """
        from lakehouse_pipeline.build import portrait  # noqa: PLC0415  # polars and pyiceberg
        from lakehouse_pipeline.build.reconciliation import build_reconciliation  # noqa: PLC0415

        reach = settings.load().history.reach
        with lakehouse.open() as lake:
            for exchange, day, seen in days(context, lake):
                date = day.start.date()
                result = build_reconciliation(lake, exchange, date, watermark=seen, reach=reach)
                tell(context, [result])
                show(context, exchange, day, "budget", portrait.budget_of_day(lake, exchange, day))

    return [history_1m, reconciliation]
