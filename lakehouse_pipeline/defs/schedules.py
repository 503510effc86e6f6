"""What runs by the clock, always in UTC, always with the same key for the same minute.

None can pile up: a schedule skips, and says why, while its last run is unfinished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg

from . import jobs
from .drain import drain_reason
from .partitions import range_tags
from .runs import UNFINISHED

# Yesterday's last minutes close and arrive a little after midnight.
AFTERMATH = timedelta(minutes=10)

Tags = Callable[[datetime], dict[str, str]]


def build_schedules(exchanges: Sequence[str], state_dir: Path) -> list[dg.ScheduleDefinition]:
    """Return every schedule of the deployment, all on."""

    def today(at: datetime) -> dict[str, str]:
        return range_tags((at - AFTERMATH).date(), at.date(), exchanges)

    def yesterday(at: datetime) -> dict[str, str]:
        day = (at - timedelta(days=1)).date()
        return range_tags(day, day, exchanges)

    def unpartitioned(_: datetime) -> dict[str, str]:
        return {}

    return [
        _schedule(jobs.BUILD_TODAY, "* * * * *", today, state_dir),
        _schedule(jobs.REPORT_GAPS, "7 * * * *", today, state_dir),
        _schedule(jobs.FINALIZE_YESTERDAY, "20 0 * * *", yesterday, state_dir),
        _schedule(jobs.SEAL_AND_COMPACT, "40 */2 * * *", unpartitioned, state_dir),
    ]


def _schedule(job: str, cron: str, tags: Tags, state_dir: Path) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{job}_schedule",
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if reason := drain_reason(state_dir):
            return dg.SkipReason(reason)
        unfinished = context.instance.get_runs(
            dg.RunsFilter(job_name=job, statuses=list(UNFINISHED)), limit=1
        )
        if unfinished:
            return dg.SkipReason(f"Run {unfinished[0].run_id[:8]} of {job} is not finished yet.")
        at = context.scheduled_execution_time
        return dg.RunRequest(run_key=f"{at:%Y-%m-%dT%H:%M}", tags=tags(at))

    return schedule
