"""Keeping the tables small and their days reachable: what is sealed, merged and tagged, and when.

``lake.maintenance`` can do each; here is what only builders know: who reads which table, and when
a day is the same in all of them. Schedules belong to ``defs``, single commands to the CLI.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import structlog

from lakehouse_pipeline.errors import UsageError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.maintenance import (
    TAG_PREFIX,
    Budget,
    Rewritten,
    compact,
    day_tag,
    seal,
    tag_day,
)
from lakehouse_pipeline.lake.slices import Selection
from lakehouse_pipeline.market.windows import DAY, TimeWindow, floor

from .bars import BARS_1M, BARS_1S, current_watermark
from .freshness import is_due
from .inputs import COVERAGE
from .kinds import QUOTES

log = structlog.get_logger()

# Downstream first: what the bars were built from is then in the quotes that are looked at later.
CHAIN = (BARS_1M, BARS_1S, QUOTES)
# Who remembers, exchange by exchange, up to which commit of a table it has read.
READERS = {QUOTES: BARS_1S, BARS_1S: BARS_1M}
BUILT_FROM = "built_from."
BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)  # no day is closed
TAG_PATIENCE = DAY
TAGGED_BACK = 3  # days for which a missing tag is still given


def seal_consumed(
    lake: Lakehouse, table: str, *, before: datetime, budget: Budget | None = None
) -> Rewritten:
    """Seal the closed hours of *table*, never past what the table built from it has read."""
    reader = READERS.get(table)
    consumed = {} if reader is None else lake.progress_by(reader, BUILT_FROM)
    return seal(lake, table, before=before, consumed=consumed, budget=budget)


def keep_small(
    lake: Lakehouse, table: str, *, before: datetime, budget: Budget | None = None
) -> tuple[Rewritten, Rewritten]:
    """Seal what is closed in *table* and merge its small files; the budget is each verb's own."""
    return (
        seal_consumed(lake, table, before=before, budget=budget),
        compact(lake, table, before=floor(before, DAY), budget=budget),
    )


def merge_marks(lake: Lakehouse) -> Rewritten:
    """Merge the files of running days of coverage once they are many.

    Coverage has no hot files: each commit adds one to its day, and every tick reads them all.
    """
    return compact(lake, COVERAGE, before=BEFORE_ALL)


def tag_days(lake: Lakehouse, *, now: datetime) -> list[date]:
    """Tag the last days on which quotes and bars agree; return which got theirs.

    They agree when the day is finished, and the bars have read every quote of it and the minutes
    every second. Rows of later days may differ at a tag: who travels there reads up to the end of
    its day.
    """
    today = floor(now, DAY)
    days = [(today - back * DAY).date() for back in range(TAGGED_BACK, 0, -1)]
    return [day for day in days if _tag(lake, day, now)]


def travel_days(lake: Lakehouse) -> list[date]:
    """Return the days that have their tag in every table of the chain, oldest first."""
    tags = [{tag for tag in lake.tags(table) if tag.startswith(TAG_PREFIX)} for table in CHAIN]
    common = sorted(set.intersection(*tags))
    return [date.fromisoformat(tag.removeprefix(TAG_PREFIX)) for tag in common]


def travel_tag(lake: Lakehouse, table: str, day: date) -> str:
    """Return the tag under which *table* shows *day* in agreement with the others of the chain.

    Raises:
        UsageError: if the table keeps no tags, or not all of them have that day's.
    """
    if table not in CHAIN:
        raise UsageError(
            f"{table} cannot be read as of a day.", mend=f"Kept by day: {', '.join(sorted(CHAIN))}."
        )
    days = travel_days(lake)
    if day not in days:
        raise UsageError(
            f"There is no way back to {day}.",
            mend=f"Days: {', '.join(map(str, days)) or 'none yet'}.",
        )
    return day_tag(day)


def _tag(lake: Lakehouse, day: date, now: datetime) -> bool:
    """Tag *day* where its tag is missing, if the tables agree about it."""
    name = day_tag(day)
    if all(name in lake.tags(table) for table in CHAIN):
        return False
    window = TimeWindow.of_day(day)
    heads: dict[str, int] = {}
    read: dict[str, int] = {}  # of the table before, in CHAIN
    finished: set[str] = set()  # exchanges
    for table in CHAIN:
        # Progress before the head: an older progress only makes the day wait.
        read_by_this = lake.progress_by(table, BUILT_FROM)
        head = lake.snapshot_id(table)
        if head is None:
            return False
        files = lake.live_files(table, Selection(window=window), snapshot=head)
        if not files:
            return False
        for file in files:
            exchange = file.exchanges[0] if file.exchanges else ""
            unread = heads and file.sequence > read.get(exchange, 0)
            if unread or (exchange not in finished and not _is_finished(lake, exchange, day, now)):
                log.info("tag_postponed", day=str(day), table=table, exchange=exchange)
                return False
            finished.add(exchange)
        heads[table], read = head, read_by_this
    for table, head in heads.items():
        tag_day(lake, table, day, snapshot_id=head)
    return True


def _is_finished(lake: Lakehouse, exchange: str, day: date, now: datetime) -> bool:
    """Tell whether *day* is over for *exchange* and was built as a whole from all there is of it.

    Ticks are not enough: official minutes and late quotes reach the bars with the night's build.
    """
    end = TimeWindow.of_day(day).end
    seen_up_to = current_watermark(lake, exchange)
    if seen_up_to is None or seen_up_to < end:
        # A worker that fell silent may come back and land what its spool holds of the day.
        return now >= end + TAG_PATIENCE
    return not is_due(lake, exchange, day)
