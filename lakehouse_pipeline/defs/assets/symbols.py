"""What each symbol is, and how its volume counter behaves."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
import dagster as dg

from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market import columns

from .catalogue import built
from .market import DayConfig
from .slices import days, tell


def symbol_assets(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetsDefinition]:
    @built("market.symbols", columns.SYMBOLS, partitions, deps=["raw.quotes", "raw.coverage"])
    def symbols(
        context: dg.AssetExecutionContext, config: DayConfig, lakehouse: LakehouseResource
    ) -> None:
        """What each symbol was on a day, from when to when.

        Precision, currency, type and update mode, as the feed says; and the kind of its volume
        counter, as its own steps show. Ticks keep the running day's rows fresh as well.
        """
        from lakehouse_pipeline.build.symbols import build_symbols  # noqa: PLC0415  # polars and pyiceberg

        names = config.symbols or None
        with lakehouse.open() as lake:
            for exchange, day, seen in days(context, lake):
                date = day.start.date()
                tell(context, [build_symbols(lake, exchange, date, watermark=seen, symbols=names)])

    return [symbols]
