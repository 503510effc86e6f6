"""Bars and gaps: built from the raw tables, and again whenever somebody asks."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
from enum import Enum

import dagster as dg
from pydantic import Field

from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market import columns

from .catalogue import built
from .slices import days, exchanges, show, tell


class Scope(Enum):
    """How much of its partitions a run builds."""

    DAY = "day"  # all that the watermark has closed
    NEW = "new"  # what came since the last tick


class DayConfig(dg.Config):
    symbols: list[str] = Field(
        [], description="Full names such as BINANCE:BTCUSDT; everything recorded by default."
    )


class BarsConfig(DayConfig):
    scope: Scope = Field(
        Scope.DAY,
        description="DAY rebuilds the partitions; NEW adds what came since the last tick.",
    )


def market_assets(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetsDefinition]:
    @built(
        "market.bars_1s",
        columns.BARS,
        partitions,
        deps=["raw.quotes", "raw.coverage", "market.symbols"],
    )
    def bars_1s(
        context: dg.AssetExecutionContext, config: BarsConfig, lakehouse: LakehouseResource
    ) -> None:
        """One-second OHLCV bars, sparse: a second without an update has no row.

        Volume is the exact difference of the feed's counter, and every bar says how much of its
        second was seen.
        """
        from lakehouse_pipeline.build import bars, tick, upkeep  # noqa: PLC0415  # polars and pyiceberg

        with lakehouse.open() as lake:
            if config.scope is Scope.NEW:
                for exchange, seen in exchanges(context, lake):
                    tell(context, tick.tick_1s(lake, exchange, watermark=seen))
                upkeep.merge_marks(lake)
                return
            names = config.symbols or None
            for exchange, day, seen in days(context, lake):
                tell(context, bars.build_1s(lake, exchange, day, watermark=seen, symbols=names))

    @built(
        "market.bars_1m",
        columns.MINUTE_BARS,
        partitions,
        deps=["market.bars_1s", "market.history_1m"],
    )
    def bars_1m(
        context: dg.AssetExecutionContext, config: BarsConfig, lakehouse: LakehouseResource
    ) -> None:
        """One-minute OHLCV bars, rolled up from the one-second bars.

        A minute of which not all was seen is the official one where history has it, and says so.
        """
        from lakehouse_pipeline.build import bars, portrait, tick  # noqa: PLC0415  # polars and pyiceberg

        with lakehouse.open() as lake:
            if config.scope is Scope.NEW:
                for exchange, seen in exchanges(context, lake):
                    tell(context, tick.tick_1m(lake, exchange, watermark=seen))
                return
            names = config.symbols or None
            for exchange, day, seen in days(context, lake):
                tell(context, bars.build_1m(lake, exchange, day, watermark=seen, symbols=names))
                drawn = portrait.candles_of_day(lake, exchange, day)
                show(context, exchange, day, "candles", drawn)

    @built("market.gaps", columns.GAPS, partitions, deps=["raw.quotes", "raw.coverage"])
    def gaps(
        context: dg.AssetExecutionContext, config: DayConfig, lakehouse: LakehouseResource
    ) -> None:
        """The ledger of what was not seen.

        From when to when, why, how we know, and the volume that passed meanwhile.
        """
        from lakehouse_pipeline.build import portrait  # noqa: PLC0415  # polars and pyiceberg
        from lakehouse_pipeline.build.gaps import build_gaps  # noqa: PLC0415

        names = config.symbols or None
        with lakehouse.open() as lake:
            for exchange, day, seen in days(context, lake):
                date = day.start.date()
                tell(context, [build_gaps(lake, exchange, date, watermark=seen, symbols=names)])
                drawn = portrait.coverage_of_day(lake, exchange, day)
                show(context, exchange, day, "seen", drawn)

    return [bars_1s, bars_1m, gaps]
