"""Days that fell behind: found in the lake, asked for again, a few at a time.

Ticks look back to yesterday and the night's run four days; rows that land later (a replay, a worker
whose spool was away for a week) make their day older than its inputs. ``build.freshness`` says
which days these are; here they become runs.
"""

# No postponed annotations here: Dagster reads the class of a resource parameter, not its name.
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from .drain import drain_reason
from .jobs import CATCH_UP, FINALIZE_YESTERDAY
from .partitions import range_tags
from .resources import LakehouseResource
from .runs import UNFINISHED

if TYPE_CHECKING:
    from lakehouse_pipeline.build.freshness import Due

LOOK_EVERY = 600  # seconds
DAYS_A_RUN = 7
# A day that has just ended is left to the night's run.
LEFT_TO_FINALIZE = timedelta(hours=1)
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighboring days that are due; *sequence* is of the newest commit they have not read."""

    first: date
    last: date
    sequence: int
    reason: str


def build_catch_up(exchanges: Sequence[str], state_dir: Path) -> dg.SensorDefinition:
    """Return the sensor; it is on."""

    @dg.sensor(
        name=CATCH_UP,
        job_name=CATCH_UP,
        minimum_interval_seconds=LOOK_EVERY,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Builds days again that are older than what they are built from.",
    )
    def catch_up(
        context: dg.SensorEvaluationContext, lakehouse: LakehouseResource
    ) -> dg.SensorResult | dg.SkipReason:
        if reason := drain_reason(state_dir) or busy(context.instance):
            return dg.SkipReason(reason)
        return ask(lakehouse, exchanges, now=datetime.now(UTC))

    return catch_up


def ask(
    lakehouse: LakehouseResource, exchanges: Sequence[str], *, now: datetime
) -> dg.SensorResult | dg.SkipReason:
    """Ask for one run of each exchange that is behind, its newest days first.

    A run that did not help is asked for again on the next day only, or when more has landed.
    """
    from lakehouse_pipeline.build.bars import current_watermark  # noqa: PLC0415  # polars and pyiceberg
    from lakehouse_pipeline.build.freshness import closed_days  # noqa: PLC0415

    requests = []
    with lakehouse.open() as lake:
        for exchange in exchanges:
            seen = current_watermark(lake, exchange)
            if seen is None:
                continue
            due = closed_days(lake, exchange, watermark=min(seen, now - LEFT_TO_FINALIZE))
            stretch = next(stretches(due), None)
            if stretch is None:
                continue
            requests.append(request(exchange, stretch, now.date()))
    if not requests:
        return dg.SkipReason("Every finished day has read all there is of it.")
    return dg.SensorResult(run_requests=requests)


def request(exchange: str, stretch: Stretch, today: date) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{exchange} {stretch.first} to {stretch.last} at {stretch.sequence}, {today}",
        tags={
            **range_tags(stretch.first, stretch.last, [exchange]),
            "lakehouse/because": stretch.reason[:255],
        },
    )


def stretches(due: Iterable["Due"]) -> Iterator[Stretch]:
    """Yield neighboring days together, at most ``DAYS_A_RUN``, in the order given: newest first."""
    group: list[Due] = []
    for day in due:
        if group and (group[-1].day - day.day != ONE_DAY or len(group) == DAYS_A_RUN):
            yield _stretch(group)
            group = []
        group.append(day)
    if group:
        yield _stretch(group)


def _stretch(group: Sequence["Due"]) -> Stretch:
    newest = max(day.sequence for day in group)
    return Stretch(group[-1].day, group[0].day, newest, f"{group[0].day}: {group[0].reason}")


def busy(instance: dg.DagsterInstance) -> str | None:
    """Return why nothing is asked for now: days are being built already."""
    for job in (CATCH_UP, FINALIZE_YESTERDAY):
        wanted = dg.RunsFilter(job_name=job, statuses=list(UNFINISHED))
        if runs := instance.get_runs(wanted, limit=1):
            return f"Run {runs[0].run_id[:8]} of {job} is not finished yet."
    return None
