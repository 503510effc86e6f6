"""What must be true of bars: statements proven in ``build.proof`` become checks here."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from lakehouse_pipeline.defs.assets.catalogue import POOL, key
from lakehouse_pipeline.defs.assets.market import Scope
from lakehouse_pipeline.defs.partitions import parts_of
from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import TimeWindow

if TYPE_CHECKING:
    from lakehouse_pipeline.build.proof import Proof
    from lakehouse_pipeline.lake.lakehouse import Lakehouse

RECENT = timedelta(hours=1)  # what a tick examines: proving the whole day again would grow with it
SHOWN = 20  # offenders in the check's metadata


class ProofConfig(dg.Config):
    scope: Scope = Field(Scope.DAY, description="DAY examines the partitions, NEW the last hour.")


def bar_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(
        asset=key("market.bars_1s"), blocking=True, partitions_def=partitions, pool=POOL
    )
    def ohlc_is_consistent(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> dg.AssetCheckResult:
        """Low is the lowest, high the highest of each bar, and nothing is counted below zero."""
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        return verdict(context, config, lakehouse, proof.ohlc_is_consistent)

    @dg.asset_check(asset=key("market.bars_1m"), partitions_def=partitions, pool=POOL)
    def bars_match_quotes(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> dg.AssetCheckResult:
        """Counts, high, low and close of each minute are those of its quotes."""
        from lakehouse_pipeline.build import proof  # noqa: PLC0415  # polars and pyiceberg

        return verdict(context, config, lakehouse, proof.bars_match_quotes)

    return [ohlc_is_consistent, bars_match_quotes]


def verdict(
    context: dg.AssetCheckExecutionContext,
    config: ProofConfig,
    lakehouse: LakehouseResource,
    statement: "Callable[[Lakehouse, str, TimeWindow], Proof]",
) -> dg.AssetCheckResult:
    """Prove *statement* for the run's partitions, day by day, and show the first offenders."""
    examined = broken = 0
    shown: list[str] = []
    with lakehouse.open() as lake:
        for exchange, window in windows(context, lake, config.scope):
            proof = statement(lake, exchange, window)
            examined += proof.examined
            broken += proof.offenders.height
            shown += [str(row) for row in proof.offenders.head(SHOWN - len(shown)).to_dicts()]
    return dg.AssetCheckResult(
        passed=not broken,
        metadata={
            "bars_examined": examined,
            "offenders": broken,
            **({"first_offenders": dg.MetadataValue.md("\n\n".join(shown))} if shown else {}),
        },
    )


def windows(
    context: dg.AssetCheckExecutionContext, lake: "Lakehouse", scope: Scope
) -> Iterator[tuple[str, TimeWindow]]:
    """Yield what is examined of each partition whose exchange was ever recorded."""
    from lakehouse_pipeline.build.bars import current_watermark  # noqa: PLC0415  # as above

    for part in parts_of(context):
        day, seen = TimeWindow.of_day(part.day), current_watermark(lake, part.exchange)
        if seen is None:
            continue
        examined = day if scope is Scope.DAY else day.intersect(TimeWindow(seen - RECENT, seen))
        if examined is not None:
            yield part.exchange, examined
