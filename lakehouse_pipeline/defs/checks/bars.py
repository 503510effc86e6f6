"""What must be true of bars: statements proven in ``build.proof`` become checks here."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from lakehouse_pipeline.defs.assets.catalogue import POOL, key
from lakehouse_pipeline.defs.assets.market import Scope
from lakehouse_pipeline.defs.partitions import Part
from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import TimeWindow

from .verdicts import SHOWN, Verdict, Verdicts, check, judge

if TYPE_CHECKING:
    from lakehouse_pipeline.build.proof import Proof
    from lakehouse_pipeline.lake.lakehouse import Lakehouse

RECENT = timedelta(hours=1)  # what a tick examines: proving the whole day again would grow with it


class ProofConfig(dg.Config):
    scope: Scope = Field(Scope.DAY, description="DAY examines the partitions, NEW the last hour.")


def bar_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    @check(key("market.bars_1s"), partitions, pool=POOL, blocking=True)
    def ohlc_is_consistent(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Low is the lowest, high the highest of each bar, and nothing is counted below zero."""
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        yield from verdicts(context, config, lakehouse, proof.ohlc_is_consistent)

    @check(key("market.bars_1m"), partitions, pool=POOL)
    def bars_match_quotes(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Counts, high, low and close of each minute are those of its quotes."""
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        yield from verdicts(context, config, lakehouse, proof.bars_match_quotes)

    return [ohlc_is_consistent, bars_match_quotes]


def day_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """Return what is proven of days each hour, beside the ledger: a tick has no time for it."""
    ledger, seconds, minutes = (key(f"market.{name}") for name in ("gaps", "bars_1s", "bars_1m"))

    @check(ledger, partitions, pool=POOL, after=[seconds, minutes])
    def rows_are_in_their_place(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Bars are ordered, unique, on their grid, within their day and none of the future."""
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        yield from verdicts(context, config, lakehouse, proof.rows_are_in_their_place)

    @check(ledger, partitions, pool=POOL, after=[seconds])
    def minutes_equal_direct_ones(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Minutes rolled up from seconds are those built from quotes at once."""
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        yield from verdicts(context, config, lakehouse, proof.minutes_equal_direct_ones)

    @check(ledger, partitions, pool=POOL, after=[seconds])
    def volume_is_conserved(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Volume of bars and of gaps is all that each counter counted; the rest is shown.

        A warning: a state restored in the middle leaves a residual that is nobody's fault.
        """
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        statement, warning = proof.volume_is_conserved, dg.AssetCheckSeverity.WARN
        yield from verdicts(context, config, lakehouse, statement, severity=warning)

    return [rows_are_in_their_place, minutes_equal_direct_ones, volume_is_conserved]


def verdicts(
    context: dg.AssetCheckExecutionContext,
    config: ProofConfig,
    lakehouse: LakehouseResource,
    statement: "Callable[[Lakehouse, str, TimeWindow], Proof]",
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> Verdicts:
    """Prove *statement* for each partition of the run and show the first offenders."""
    with lakehouse.open() as lake:

        def prove(key: str) -> Verdict:
            part = Part.of(key)
            window = examined(lake, part, config.scope)
            if window is None:
                return Verdict(0, {"bars_examined": 0})
            proof = statement(lake, part.exchange, window)
            shown = tuple(str(row) for row in proof.offenders.head(SHOWN).to_dicts())
            return Verdict(proof.offenders.height, {"bars_examined": proof.examined}, shown)

        yield from judge(context, prove, severity=severity)


def examined(lake: "Lakehouse", part: Part, scope: Scope) -> TimeWindow | None:
    """Return what is examined of *part*; None if its exchange was never recorded."""
    from lakehouse_pipeline.build.bars import current_watermark  # noqa: PLC0415  # as above

    day, seen = TimeWindow.of_day(part.day), current_watermark(lake, part.exchange)
    if seen is None:
        return None
    return day if scope is Scope.DAY else day.intersect(TimeWindow(seen - RECENT, seen))
