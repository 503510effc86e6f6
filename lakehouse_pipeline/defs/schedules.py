"""What runs by the clock, always in UTC, always with the same key for the same minute.

None can pile up: a schedule skips, and says why, while its last run is unfinished. How exchanges
share runs is said in ``isolation``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from . import jobs
from .assets.maintenance import TABLES
from .drain import drain_reason
from .isolation import Newest, groups, newest_runs
from .partitions import RANGE_END, RANGE_START, range_tags
from .retention import forget_runs
from .runs import UNFINISHED

# Yesterday's last minutes close and arrive a little after midnight.
AFTERMATH = timedelta(minutes=10)
# The feed's history reaches three and a half days back; what was lost before shows as lost.
REPAIRABLE = timedelta(days=4)

Tags = Callable[[datetime, Sequence[str]], dict[str, str]]
Idle = Callable[[Sequence[Newest], Sequence[str]], str | None]
Asked = Sequence[dg.RunRequest] | dg.SkipReason
Decision = Callable[[dg.ScheduleEvaluationContext], Asked]


def build_schedules(exchanges: Sequence[str], state_dir: Path) -> list[dg.ScheduleDefinition]:
    """Return every schedule of the deployment, all on."""

    def idle(newest: Sequence[Newest], of: Sequence[str]) -> str | None:
        return nothing_new(newest, last_commit(of, state_dir))

    def never_idle(_newest: Sequence[Newest], _of: Sequence[str]) -> str | None:
        return None

    def by_exchange(
        job: str, cron: str, tags: Tags, idle: Idle, config: Mapping[str, Any] | None = None
    ) -> dg.ScheduleDefinition:
        def decide(context: dg.ScheduleEvaluationContext) -> Asked:
            newest = newest_runs(context.instance, job, exchanges)
            at, shares, reasons = context.scheduled_execution_time, groups(newest), []
            requests = []
            for group in shares:
                runs = [newest[exchange] for exchange in group]
                if reason := busy(runs) or idle(runs, group):
                    reasons.append(reason)
                    continue
                key = _key(at) if len(shares) == 1 else f"{_key(at)} {group[0]}"
                requests.append(dg.RunRequest(key, tags=tags(at, group), run_config=config))
            return requests or dg.SkipReason(" ".join(dict.fromkeys(reasons)))

        return _schedule(job, cron, state_dir, decide)

    def as_a_whole(job: str, cron: str, tags: Mapping[str, str]) -> dg.ScheduleDefinition:
        def decide(context: dg.ScheduleEvaluationContext) -> Asked:
            wanted = dg.RunsFilter(job_name=job, statuses=list(UNFINISHED))
            if runs := context.instance.get_run_records(wanted, limit=1):
                return dg.SkipReason(not_finished(runs[0]))
            return [dg.RunRequest(_key(context.scheduled_execution_time), tags=tags)]

        return _schedule(job, cron, state_dir, decide)

    every_table = {RANGE_START: TABLES[0], RANGE_END: TABLES[-1]}
    return [
        by_exchange(jobs.BUILD_TODAY, "* * * * *", today, idle, jobs.TICK_CONFIG),
        by_exchange(jobs.REPORT_GAPS, "7 * * * *", today, idle, jobs.HOURLY_CONFIG),
        by_exchange(jobs.REPAIR, "17 * * * *", repairable, never_idle),
        by_exchange(jobs.FINALIZE_YESTERDAY, "20 0 * * *", finished, never_idle),
        as_a_whole(jobs.SEAL_AND_COMPACT, "40 */2 * * *", every_table),
        as_a_whole(jobs.CLEAN_FOLDERS, "50 1 * * *", every_table),
        as_a_whole(forget_runs.name, "10 * * * *", {}),
    ]


def today(at: datetime, exchanges: Sequence[str]) -> dict[str, str]:
    return range_tags((at - AFTERMATH).date(), at.date(), exchanges)


def finished(at: datetime, exchanges: Sequence[str]) -> dict[str, str]:
    # Not yesterday alone: what was still away at midnight, or a night without us, is made up.
    return range_tags((at - REPAIRABLE).date(), (at - timedelta(days=1)).date(), exchanges)


def repairable(at: datetime, exchanges: Sequence[str]) -> dict[str, str]:
    return range_tags((at - REPAIRABLE).date(), at.date(), exchanges)


def last_commit(exchanges: Sequence[str], state_dir: Path) -> datetime | None:
    """Return when a worker last committed, as its heartbeat says; a dead one's counts as well."""
    from lakehouse_pipeline.ingest.supervision import workers  # noqa: PLC0415  # slow to import

    commits = (
        status.last_commit_at for exchange in exchanges for status in workers(state_dir, exchange)
    )
    return max((commit for commit in commits if commit is not None), default=None)


def nothing_new(newest: Sequence[Newest], commit: datetime | None) -> str | None:
    """Return why a run beside *newest* would find nothing, or None."""
    if commit is None:
        return "No worker has committed yet."
    done = [runs.finished for runs in newest if runs.finished is not None and runs.succeeded]
    has_read = [run.start_time is not None and run.start_time > commit.timestamp() for run in done]
    if len(done) < len(newest) or not all(has_read):
        return None
    return f"Nothing was committed since run {done[0].dagster_run.run_id[:8]}."


def busy(newest: Sequence[Newest]) -> str | None:
    """Return which of *newest* has not ended, or None."""
    running = (runs.unfinished for runs in newest if runs.unfinished is not None)
    return next(map(not_finished, running), None)


def not_finished(record: dg.RunRecord) -> str:
    run = record.dagster_run
    return f"Run {run.run_id[:8]} of {run.job_name} is not finished yet."


def _schedule(job: str, cron: str, state_dir: Path, decide: Decision) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Asked:
        if reason := drain_reason(state_dir):
            return dg.SkipReason(reason)
        return decide(context)

    return schedule


def _key(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M}"
