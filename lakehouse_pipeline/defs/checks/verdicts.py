"""One verdict for each partition, also where one run judges many.

Dagster expects a result of every partition of a run, but makes of an ``AssetCheckResult`` one
without a partition if the run has several: the others would stay "not run" in the UI for ever. So
the evaluations are written out here. A blocking check stops what is downstream if any fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import dagster as dg
from dagster import AssetCheckEvaluation, AssetRecordsFilter
from dagster._core.definitions.asset_checks.asset_check_evaluation import (  # no public name for it
    AssetCheckEvaluationTargetMaterializationData as Judged,
)

SHOWN = 20  # offenders in a check's metadata
Verdicts = Iterator[AssetCheckEvaluation | dg.Output[None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one partition: the lines that break the statement, and figures."""

    offenders: int
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()  # the first or worst, also if nothing is wrong
    title: str = "first_offenders"
    said: str | None = (
        None  # what a reader of the verdict must know, such as what it is not based on
    )

    @property
    def metadata(self) -> dict[str, Any]:  # Any: Dagster's own union of values
        listed = {self.title: dg.MetadataValue.md("\n\n".join(self.shown[:SHOWN]))}
        return {
            **self.figures,
            "offenders": self.offenders,
            **(listed if self.shown else {}),
        }


def check(
    asset: dg.AssetKey,
    partitions: dg.PartitionsDefinition,
    *,
    pool: str,
    blocking: bool = False,
    after: Sequence[dg.AssetKey] = (),
) -> Callable[[Callable[..., Verdicts]], dg.AssetChecksDefinition]:
    """Decorate a body that yields from ``judge``; it also waits for the assets of *after*."""
    decorate = dg.asset_check(
        asset=asset,
        partitions_def=partitions,
        pool=pool,
        blocking=blocking,
        additional_deps=list(after) or None,
    )
    # Its annotation knows of single results only; bodies may yield, as those of ops do.
    return cast("Callable[[Callable[..., Verdicts]], dg.AssetChecksDefinition]", decorate)


def judge(
    context: dg.AssetCheckExecutionContext,
    statement: Callable[[str], Verdict],
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> Verdicts:
    """Yield what *statement* says of each partition key of the run."""
    (spec,) = context.check_specs
    for key in context.partition_keys:
        found = statement(key)
        yield AssetCheckEvaluation(
            asset_key=spec.asset_key,
            check_name=spec.name,
            passed=not found.offenders,
            description=found.said,
            metadata=dg.AssetCheckResult(passed=True, metadata=found.metadata).metadata,
            target_materialization_data=_judged(context.instance, spec.asset_key, key),
            severity=severity,
            blocking=spec.blocking,
            partition=key,
        )
    yield dg.Output(None, output_name=context.op_def.output_defs[0].name)


def _judged(instance: dg.DagsterInstance, asset: dg.AssetKey, key: str) -> Judged | None:
    """Return which materialization the verdict is of: the UI calls older verdicts stale."""
    wanted = AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
    newest = instance.fetch_materializations(wanted, limit=1).records
    if not newest:
        return None
    record = newest[0]
    return Judged(
        run_id=record.event_log_entry.run_id,
        storage_id=record.storage_id,
        timestamp=record.timestamp,
    )
