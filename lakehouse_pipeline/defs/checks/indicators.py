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
NOTHING_COMPARED = "No minute has a settled value of both: nothing was compared."


def indicator_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    @check(key("market.indicators_1m"), partitions, pool=POOL)
    def computed_equals_ingested(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Our values are TradingView's, wherever both have forgotten where they began.

        A value of theirs whose study we have in other plots is an offender too.
        The worst deviations are listed, also when all is well; a warning, because the feed's word
        decides nothing here.
        """
        from lakehouse_pipeline.build.indicators import (  # noqa: PLC0415  # polars and pyiceberg
            without_counterpart,
            worst_deviations,
        )

        with lakehouse.open() as lake:

            def compare(key: str) -> Verdict:
                part = Part.of(key)
                day = TimeWindow.of_day(part.day)
                found = worst_deviations(lake, part.exchange, day)
                lone = without_counterpart(lake, part.exchange, day)
                apart = found.filter(found["deviation"] > TOLERANCE).height
                figures = {
                    "values_compared": found.height,
                    "ingested_without_computed": lone.height,
                    "tolerance": TOLERANCE,
                }
                return Verdict(
                    apart + lone.height,
                    figures,
                    (
                        *map(_lone, lone.head(3).to_dicts()),
                        *map(_line, found.head(SHOWN).to_dicts()),
                    ),
                    title="worst_deviations",
                    said=None if found.height else NOTHING_COMPARED,
                )

            yield from judge(context, compare, severity=dg.AssetCheckSeverity.WARN)

    return [computed_equals_ingested]


def _lone(row: dict[str, object]) -> str:
    return (
        f"{row['symbol']} {row['open_time']:%Y-%m-%d %H:%M} {row['name']} {row['parameters']} "
        f"{row['plot']}: ingested {row['value']:.10g}, not computed"
    )


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['symbol']} {row['open_time']:%Y-%m-%d %H:%M} {row['name']} {row['parameters']} "
        f"{row['plot']}: computed {row['computed']:.10g}, ingested {row['ingested']:.10g}, "
        f"apart {row['deviation']:.2e}"
    )
