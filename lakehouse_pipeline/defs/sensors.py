"""One supervisor per exchange: keeps its stream alive, and says in each tick what it saw.

Whether an exchange is recorded is judged by its worker's heartbeat, because Dagster believes a run
whose machine crashed to be running; ``ingest.supervision`` decides, here the decision meets
Dagster's runs. Each exchange has a sensor of its own, and so its own toggle and tick history. A
toggle that is off lets a running stream go on and starts no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from .drain import drain_reason
from .jobs import BECAUSE, EXCHANGE, stream_quotes
from .runs import UNFINISHED, end_dead_run, has_lost_its_process

if TYPE_CHECKING:
    from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
    from lakehouse_pipeline.ingest.supervision import Failure

LOOK_EVERY = 5  # seconds; the daemon's own step
# From a run's start to its worker's first heartbeat; a process silent for longer is canceled.
SILENCE_BORNE = timedelta(minutes=2)


def build_supervisors(exchanges: Sequence[str], state_dir: Path) -> list[dg.SensorDefinition]:
    """Return a sensor for each exchange, all on."""
    return [_supervisor(exchange, state_dir) for exchange in exchanges]


def _supervisor(exchange: str, state_dir: Path) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"supervise_{exchange.lower()}",
        job=stream_quotes,
        minimum_interval_seconds=LOOK_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Keeps one worker recording {exchange}.",
    )
    def supervisor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = datetime.now(UTC)
        if reason := drain_reason(state_dir):
            decided: dg.RunRequest | dg.SkipReason = dg.SkipReason(reason)
        else:
            decided = supervise(context.instance, state_dir, exchange, now=now)
        # The UI shows a tick's reason after a click, a sensor's cursor at once.
        context.update_cursor(f"{now:%H:%M:%S} UTC: {reason_of(decided)}")
        return decided

    return supervisor


def supervise(
    instance: dg.DagsterInstance, state_dir: Path, exchange: str, *, now: datetime
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a worker of *exchange*, or say why none is started."""
    from lakehouse_pipeline.ingest import supervision  # noqa: PLC0415  # a tenth of a second each run would pay

    living = [
        status
        for status in supervision.workers(state_dir, exchange)
        if supervision.is_alive(status, now)
    ]
    failures = known_failures(instance, state_dir, exchange, now)
    match supervision.decide(living, failures, now):
        case supervision.Keep(status) if not supervision.is_due(status):
            return dg.SkipReason(summary(status))
        case supervision.Keep(status):
            predecessors, because = (
                {status.run_id},
                f"process {status.process.pid} is due",
            )
        case supervision.Wait(until, reason):
            return dg.SkipReason(f"No start before {until:%H:%M:%S} UTC: {reason}.")
        case supervision.Start():
            predecessors, because = set(), "no worker records"
    for record in unfinished_runs(instance, exchange):
        if record.dagster_run.run_id in predecessors:
            continue
        if has_lost_its_process(instance, record.dagster_run):
            end_dead_run(instance, record.dagster_run)
            continue
        return _await(instance, record, heard_at(state_dir, exchange, record), now)
    return dg.RunRequest(
        run_config={"ops": {"record_quotes": {"config": {"exchange": exchange}}}},
        tags={EXCHANGE: exchange, BECAUSE: because},
    )


def reason_of(decided: dg.RunRequest | dg.SkipReason) -> str:
    """Return why a worker is started, or why none is."""
    if isinstance(decided, dg.SkipReason):
        return decided.skip_message or ""
    return f"A worker is started: {decided.tags[BECAUSE]}."


def unfinished_runs(instance: dg.DagsterInstance, exchange: str) -> Sequence[dg.RunRecord]:
    """Return what Dagster believes to run, or to be about to."""
    return instance.get_run_records(
        dg.RunsFilter(
            job_name=stream_quotes.name, tags={EXCHANGE: exchange}, statuses=list(UNFINISHED)
        )
    )


def known_failures(
    instance: dg.DagsterInstance, state_dir: Path, exchange: str, now: datetime
) -> list[Failure]:
    """Return what workers said of their failures, and runs that failed before one could speak."""
    from lakehouse_pipeline.ingest import supervision  # noqa: PLC0415  # as above

    told = supervision.failures(state_dir, exchange, now)
    known = {failure.run_id for failure in told}
    failed = instance.get_run_records(
        dg.RunsFilter(
            job_name=stream_quotes.name,
            tags={EXCHANGE: exchange},
            statuses=[dg.DagsterRunStatus.FAILURE],
            updated_after=now - supervision.FORGIVEN,
        ),
        limit=supervision.KEPT_FAILURES,
    )
    return told + [
        supervision.Failure(
            at=datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC),
            reason=f"run {record.dagster_run.run_id[:8]} failed before it recorded",
            run_id=record.dagster_run.run_id,
        )
        for record in failed
        if record.dagster_run.run_id not in known
    ]


def summary(status: WorkerStatus) -> str:
    """Return one line about a worker that is recording."""
    commit = f"{status.last_commit_at:%H:%M:%S}" if status.last_commit_at else "none yet"
    trouble = "; ".join(status.troubles)
    return (
        f"Process {status.process.pid} records {status.symbols} symbols: {status.quotes} quotes, "
        f"{status.pending} rows of all tables to commit, last commit {commit} UTC"
        f"{'; ' + trouble if trouble else ''}."
    )


def heard_at(state_dir: Path, exchange: str, record: dg.RunRecord) -> datetime | None:
    """Return when the run last gave a sign of life: its newest heartbeat, or its start."""
    from lakehouse_pipeline.ingest import supervision  # noqa: PLC0415  # as above

    started = [datetime.fromtimestamp(record.start_time, tz=UTC)] if record.start_time else []
    beats = [
        status.at
        for status in supervision.workers(state_dir, exchange)
        if status.run_id == record.dagster_run.run_id
    ]
    return max([*started, *beats], default=None)


def _await(
    instance: dg.DagsterInstance, record: dg.RunRecord, since: datetime | None, now: datetime
) -> dg.SkipReason:
    """Give the run time to show a heartbeat; cancel it if its process stays silent."""
    run = record.dagster_run
    if run.status == dg.DagsterRunStatus.STARTED and since and now - since > SILENCE_BORNE:
        assert instance.run_coordinator is not None
        instance.run_coordinator.cancel_run(run.run_id)
        return dg.SkipReason(f"Run {run.run_id[:8]} runs without a heartbeat: it was canceled.")
    return dg.SkipReason(f"Run {run.run_id[:8]} is {run.status.value.lower()}; no heartbeat yet.")
