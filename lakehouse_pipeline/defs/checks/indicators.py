"""How far our indicators are from TradingView's own, where a token lets both exist."""

# No postponed annotations here: Dagster reads the context's class, not its name.
import dagster as dg
import polars as pl

from lakehouse_pipeline.defs.assets.catalogue import POOL, key
from lakehouse_pipeline.defs.partitions import parts_of
from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import TimeWindow

# Of a plot's greatest value. Our closes are the last price of each snapshot, the feed's the last
# trade's: now and then they are a few ticks apart.
TOLERANCE = 1e-3
SHOWN = 20  # worst deviations in the check's metadata


def indicator_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(asset=key("market.indicators_1m"), partitions_def=partitions, pool=POOL)
    def computed_equals_ingested(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> dg.AssetCheckResult:
        """Our values are TradingView's, wherever both have forgotten where they began.

        The worst deviations are listed, also when all is well; a warning, because the feed's word
        decides nothing here.
        """
        from lakehouse_pipeline.build.indicators import worst_deviations  # noqa: PLC0415  # polars and pyiceberg

        compared = apart = 0
        worst: list[tuple[float, str]] = []
        with lakehouse.open() as lake:
            for part in parts_of(context):
                found = worst_deviations(lake, part.exchange, TimeWindow.of_day(part.day))
                compared += found.height
                apart += found.filter(pl.col("deviation") > TOLERANCE).height
                worst += [(row["deviation"], _line(row)) for row in found.head(SHOWN).to_dicts()]
        worst.sort(reverse=True)
        listed = [line for _, line in worst[:SHOWN]]
        return dg.AssetCheckResult(
            passed=not apart,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "values_compared": compared,
                "beyond_tolerance": apart,
                "tolerance": TOLERANCE,
                **(
                    {"worst_deviations": dg.MetadataValue.md("\n\n".join(listed))} if listed else {}
                ),
            },
        )

    return [computed_equals_ingested]


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['symbol']} {row['open_time']:%Y-%m-%d %H:%M} {row['name']} {row['parameters']} "
        f"{row['plot']}: computed {row['computed']:.10g}, ingested {row['ingested']:.10g}, "
        f"apart {row['deviation']:.2e}"
    )
