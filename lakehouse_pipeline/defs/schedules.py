"""What runs by the clock, always in UTC, always with the same key for the same minute.

None can pile up: a schedule skips, and says why, while its last run is unfinished.
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
from .partitions import RANGE_END, RANGE_START, range_tags
from .retention import forget_runs
from .runs import UNFINISHED

# Yesterday's last minutes close and arrive a little after midnight.
AFTERMATH = timedelta(minutes=10)
# The feed's history reaches three and a half days back; what was lost before shows as lost.
REPAIRABLE = timedelta(days=4)

Tags = Callable[[datetime], dict[str, str]]
Idle = Callable[[dg.DagsterInstance, str], str | None]


def build_schedules(exchanges: Sequence[str], state_dir: Path) -> list[dg.ScheduleDefinition]:
    """Return every schedule of the deployment, all on."""

    def today(at: datetime) -> dict[str, str]:
        return range_tags((at - AFTERMATH).date(), at.date(), exchanges)

    def finished(at: datetime) -> dict[str, str]:
        # Not yesterday alone: what was still away at midnight, or a night without us, is made up.
        return range_tags((at - REPAIRABLE).date(), (at - timedelta(days=1)).date(), exchanges)

    def repairable(at: datetime) -> dict[str, str]:
        return range_tags((at - REPAIRABLE).date(), at.date(), exchanges)

    def every_table(_: datetime) -> dict[str, str]:
        return {RANGE_START: TABLES[0], RANGE_END: TABLES[-1]}

    def unpartitioned(_: datetime) -> dict[str, str]:
        return {}

    def idle(instance: dg.DagsterInstance, job: str) -> str | None:
        return nothing_new(instance, job, last_commit(exchanges, state_dir))

    def never_idle(_instance: dg.DagsterInstance, _job: str) -> str | None:
        return None

    return [
        _schedule(jobs.BUILD_TODAY, "* * * * *", today, idle, state_dir, jobs.TICK_CONFIG),
        _schedule(jobs.REPORT_GAPS, "7 * * * *", today, idle, state_dir, jobs.HOURLY_CONFIG),
        _schedule(jobs.REPAIR, "17 * * * *", repairable, never_idle, state_dir),
        _schedule(jobs.FINALIZE_YESTERDAY, "20 0 * * *", finished, never_idle, state_dir),
        _schedule(jobs.SEAL_AND_COMPACT, "40 */2 * * *", every_table, never_idle, state_dir),
        _schedule(jobs.CLEAN_FOLDERS, "50 1 * * *", every_table, never_idle, state_dir),
        _schedule(forget_runs.name, "10 * * * *", unpartitioned, never_idle, state_dir),
    ]


def last_commit(exchanges: Sequence[str], state_dir: Path) -> datetime | None:
    """Return when a worker last committed, as its heartbeat says; a dead one's counts as well."""
    from lakehouse_pipeline.ingest.supervision import workers  # noqa: PLC0415  # slow to import

    commits = (
        status.last_commit_at for exchange in exchanges for status in workers(state_dir, exchange)
    )
    return max((commit for commit in commits if commit is not None), default=None)


def nothing_new(instance: dg.DagsterInstance, job: str, commit: datetime | None) -> str | None:
    """Return why *job* would find nothing, or None."""
    if commit is None:
        return "No worker has committed yet."
    done = instance.get_run_records(
        dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1
    )
    if done and done[0].start_time is not None and done[0].start_time > commit.timestamp():
        return f"Nothing was committed since run {done[0].dagster_run.run_id[:8]}."
    return None


def _schedule(
    job: str,
    cron: str,
    tags: Tags,
    idle: Idle,
    state_dir: Path,
    config: Mapping[str, Any] | None = None,
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        unfinished = context.instance.get_runs(
            dg.RunsFilter(job_name=job, statuses=list(UNFINISHED)), limit=1
        )
        if unfinished:
            return dg.SkipReason(f"Run {unfinished[0].run_id[:8]} of {job} is not finished yet.")
        if reason := drain_reason(state_dir) or idle(context.instance, job):
            return dg.SkipReason(reason)
        at = context.scheduled_execution_time
        return dg.RunRequest(run_key=f"{at:%Y-%m-%dT%H:%M}", tags=tags(at), run_config=config)

    return schedule
