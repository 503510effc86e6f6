"""How far our indicators are from TradingView's own, where a token lets both exist."""

# No postponed annotations here: Dagster reads the context's class, not its name.
import dagster as dg

from lakehouse_pipeline.defs.assets.catalogue import POOL, key
from lakehouse_pipeline.defs.partitions import Part
from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import TimeWindow

from .verdicts import SHOWN, Verdict, Verdicts, check, judge

# Of a plot's greatest value. Our closes are the last price of each snapshot, the feed's the last
# trade's: now and then they are a few ticks apart.
TOLERANCE = 1e-3


def indicator_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    @check(key("market.indicators_1m"), partitions, pool=POOL)
    def computed_equals_ingested(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Our values are TradingView's, wherever both have forgotten where they began.

        The worst deviations are listed, also when all is well; a warning, because the feed's word
        decides nothing here.
        """
        from lakehouse_pipeline.build.indicators import worst_deviations  # noqa: PLC0415  # polars and pyiceberg

        with lakehouse.open() as lake:

            def compare(key: str) -> Verdict:
                part = Part.of(key)
                found = worst_deviations(lake, part.exchange, TimeWindow.of_day(part.day))
                apart = found.filter(found["deviation"] > TOLERANCE).height
                figures = {"values_compared": found.height, "tolerance": TOLERANCE}
                worst = tuple(map(_line, found.head(SHOWN).to_dicts()))
                return Verdict(apart, figures, worst, title="worst_deviations")

            yield from judge(context, compare, severity=dg.AssetCheckSeverity.WARN)

    return [computed_equals_ingested]


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['symbol']} {row['open_time']:%Y-%m-%d %H:%M} {row['name']} {row['parameters']} "
        f"{row['plot']}: computed {row['computed']:.10g}, ingested {row['ingested']:.10g}, "
        f"apart {row['deviation']:.2e}"
    )
