"""One exchange's trouble never touches another: after a failed run each gets a run of its own.

A run of all exchanges costs what a run of one does, so the clock asks for one, until it does not
succeed. From then on it asks for each exchange apart, until the newest run of each has succeeded.
Add here how runs are shared out; when they are due is said in ``schedules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from .partitions import RANGE_END, RANGE_START, Part
from .runs import UNFINISHED

PARTITION = "dagster/partition"
FINISHED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
LOOKED_AT = 4  # runs back of each exchange; one not among them has not failed of late


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest runs of a job that an exchange was part of."""

    unfinished: dg.RunRecord | None = None
    finished: dg.RunRecord | None = None

    @property
    def succeeded(self) -> bool:
        """Tell whether the last run to end did so well; one that never ran has not failed."""
        return (
            self.finished is None or self.finished.dagster_run.status == dg.DagsterRunStatus.SUCCESS
        )


def newest_runs(
    instance: dg.DagsterInstance, job: str, exchanges: Sequence[str]
) -> dict[str, Newest]:
    """Return of each exchange the newest runs of *job* that it was part of."""
    unfinished = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=list(UNFINISHED)))
    finished = instance.get_run_records(
        dg.RunsFilter(job_name=job, statuses=list(FINISHED)), limit=LOOKED_AT * len(exchanges)
    )
    return {
        exchange: Newest(
            _first_of(unfinished, exchange, exchanges), _first_of(finished, exchange, exchanges)
        )
        for exchange in exchanges
    }


def groups(newest: Mapping[str, Newest]) -> list[list[str]]:
    """Return which exchanges share a run: all of them, or each has its own."""
    if all(runs.succeeded for runs in newest.values()):
        return [list(newest)]
    return [[exchange] for exchange in newest]


def covered(tags: Mapping[str, str], exchanges: Sequence[str]) -> list[str]:
    """Return the exchanges a run with *tags* was asked to build; all of them if it does not say."""
    one = tags.get(PARTITION)
    bounds = [tags.get(RANGE_START, one), tags.get(RANGE_END, one)]
    asked = [Part.of(bound).exchange for bound in bounds if bound is not None]
    known = [exchanges.index(exchange) for exchange in asked if exchange in exchanges]
    if not asked:
        return list(exchanges)
    # A bound that has left exchanges.yaml since then says nothing of those that are there now.
    return list(exchanges[known[0] : known[-1] + 1]) if known else []


def _first_of(
    records: Iterable[dg.RunRecord], exchange: str, exchanges: Sequence[str]
) -> dg.RunRecord | None:
    return next(
        (record for record in records if exchange in covered(record.dagster_run.tags, exchanges)),
        None,
    )
