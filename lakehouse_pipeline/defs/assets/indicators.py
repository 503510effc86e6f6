"""Indicators: computed from the minutes we have, beside what TradingView's own studies say."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
import dagster as dg

from lakehouse_pipeline.defs.resources import LakehouseResource, SettingsResource
from lakehouse_pipeline.market import columns

from .catalogue import built
from .market import BarsConfig, Scope
from .slices import days, exchanges, tell


def indicator_assets(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetsDefinition]:
    @built(
        "market.indicators_1m",
        columns.INDICATORS,
        partitions,
        deps=["market.bars_1m", "market.gaps", "raw.indicators"],
    )
    def indicators_1m(
        context: dg.AssetExecutionContext,
        config: BarsConfig,
        lakehouse: LakehouseResource,
        settings: SettingsResource,
    ) -> None:
        """RSI, MACD and whatever else exchanges.yaml names, one row a minute and plot.

        After a gap a study starts again: its value is null until it is warm, and flagged until it
        has forgotten where it began. Values that TradingView's studies streamed stand beside ours.
        """
        from lakehouse_pipeline.build import indicators as build  # noqa: PLC0415  # polars and pyiceberg

        studies = build.studies_of(settings.load().indicators)
        with lakehouse.open() as lake:
            if config.scope is Scope.NEW:
                for exchange, seen in exchanges(context, lake):
                    tell(context, build.tick_indicators(lake, exchange, studies, watermark=seen))
                return
            names = config.symbols or None
            for exchange, day, seen in days(context, lake):
                result = build.build_indicators(
                    lake, exchange, day.start.date(), studies, watermark=seen, symbols=names
                )
                tell(context, [result] if result is not None else [])

    return [indicators_1m]
