"""Dagster keeps runs and their events for ever; ticks are 1,440 a day and 0.2 MB each.

A tick is deleted once it is a day old and its day has been finalized: what says that a partition
was built is then the finalizing run, which stays. Add here what else may be forgotten, and when.
"""

# No postponed annotations here: Dagster reads the class of an op's context, not its name.
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from .jobs import BUILD_TODAY, CLASS, FINALIZE_YESTERDAY, MAX_RUNTIME
from .partitions import RANGE_END, RANGE_START

KEPT = timedelta(days=1)
PAGE = 200  # runs looked at at a time
FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def forgettable(
    instance: dg.DagsterInstance, tick_job: str, finalizing_job: str, *, now: datetime
) -> Iterator[str]:
    """Yield the ids of finished ticks whose every day was finalized by a run that succeeded."""
    succeeded = dg.RunsFilter(job_name=finalizing_job, statuses=[dg.DagsterRunStatus.SUCCESS])
    finalized = {day for run in _runs(instance, succeeded) for day in _days(run)}
    old = dg.RunsFilter(job_name=tick_job, statuses=FINISHED, created_before=now - KEPT)
    for run in _runs(instance, old):
        if _days(run) <= finalized:
            yield run.run_id


def _days(run: dg.DagsterRun) -> set[tuple[str, str, str]]:
    """Return each day a range run covers at its ends, with its first and last exchange."""
    first, _, from_exchange = run.tags.get(RANGE_START, "").partition("|")
    last, _, to_exchange = run.tags.get(RANGE_END, "").partition("|")
    return {(day, from_exchange, to_exchange) for day in (first, last) if day}


def _runs(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> Iterator[dg.DagsterRun]:
    cursor = None
    while page := instance.get_runs(wanted, cursor=cursor, limit=PAGE):
        yield from page
        cursor = page[-1].run_id


@dg.op
def delete_ticks(context: dg.OpExecutionContext) -> None:
    """Delete the runs and events of ticks whose days were finalized."""
    chosen = list(
        forgettable(context.instance, BUILD_TODAY, FINALIZE_YESTERDAY, now=datetime.now(UTC))
    )
    for run_id in chosen:
        context.instance.delete_run(run_id)
    context.log.info("deleted %s ticks", len(chosen))


@dg.job(executor_def=dg.in_process_executor, tags={CLASS: "batch", MAX_RUNTIME: "3600"})
def forget_ticks() -> None:
    """Keep Dagster's store flat: ticks are 1,440 a day."""
    delete_ticks()
