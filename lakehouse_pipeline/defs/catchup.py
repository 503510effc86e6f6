"""Days that fell behind: found in the lake, asked for again, a few at a time.

Ticks look back to yesterday and the night's run four days; rows that land later (a replay, a worker
whose spool was away for a week) make their day older than its inputs. ``build.freshness`` says
which days these are, ``due`` finds them; here they become runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg

from . import due
from .drain import drain_reason
from .jobs import BECAUSE, CATCH_UP, FINALIZE_YESTERDAY
from .partitions import range_tags
from .runs import UNFINISHED

LOOK_EVERY = 600  # seconds


def build_catch_up(exchanges: Sequence[str], state_dir: Path) -> dg.SensorDefinition:
    """Return the sensor; it is on."""

    @dg.sensor(
        name=CATCH_UP,
        job_name=CATCH_UP,
        minimum_interval_seconds=LOOK_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Builds days again that are older than what they are built from.",
    )
    def catch_up(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if reason := drain_reason(state_dir) or busy(context.instance):
            return dg.SkipReason(reason)
        now = datetime.now(UTC)
        return ask(due.look_apart(exchanges, now=now), today=now.date())

    return catch_up


def ask(
    found: Mapping[str, Sequence[due.Stretch]], *, today: date
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run of each stretch that is behind: one that fails holds up no other.

    A run that did not help is asked for again on the next day only, or when more has landed.
    """
    if not found:
        return dg.SkipReason("Every finished day has read all there is of it.")
    return dg.SensorResult(
        run_requests=[
            request(exchange, stretch, today)
            for exchange, behind in found.items()
            for stretch in behind
        ]
    )


def request(exchange: str, stretch: due.Stretch, today: date) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{exchange} {stretch.first} to {stretch.last} at {stretch.sequence}, {today}",
        tags={
            **range_tags(stretch.first, stretch.last, [exchange]),
            BECAUSE: stretch.reason[:255],
        },
    )


def busy(instance: dg.DagsterInstance) -> str | None:
    """Return why nothing is asked for now: days are being built already."""
    for job in (CATCH_UP, FINALIZE_YESTERDAY):
        wanted = dg.RunsFilter(job_name=job, statuses=list(UNFINISHED))
        if runs := instance.get_runs(wanted, limit=1):
            return f"Run {runs[0].run_id[:8]} of {job} is not finished yet."
    return None
