"""Which days are older than what they were built from: the one rule, and the notes it needs.

A build of a whole closed day notes, with its rows, the newest commit of each raw table it has read;
what is built from built tables inherits their notes. A day is due when a raw table has a newer file
with rows of it, however old the day is, or when it was never built as a whole. Whoever rebuilds
(the catch-up sensor, a person, the command line) leaves the same notes.

A build of a day also reads the hours before its midnight: the last price, the counter, who was
alive. So a day is due as well when rows of the day before land.

Indicators of a day also read days before it, and so are due when rows of those land. A build that
had to read one of them while that was itself due leaves no note, and the day stays due.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Self

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.progress import Renewal
from lakehouse_pipeline.lake.slices import Selection
from lakehouse_pipeline.market.windows import DAY, TimeWindow

QUOTES, COVERAGE, HISTORY = "raw.quotes", "raw.coverage", "market.history_1m"
# What each table is built from. History is fetched, not built: it counts as raw here.
INPUTS = {
    "market.bars_1s": (QUOTES, COVERAGE),
    "market.bars_1m": ("market.bars_1s", HISTORY, COVERAGE),
    "market.gaps": (QUOTES, COVERAGE),
    "market.indicators_1m": ("market.bars_1m", "market.gaps", "raw.indicators"),
    "market.reconciliation": ("market.bars_1m", "market.gaps", HISTORY),
    "market.symbols": (QUOTES, COVERAGE),
}
RAW = (QUOTES, COVERAGE, HISTORY, "raw.indicators")
# Without these a day has nothing to be built from.
RECORDED = (QUOTES, COVERAGE)
# Every build reads raw rows from before its midnight, within so many days.
LOOKS_BACK = 1
# Notes are a property of the table and so in each of its metadata files: the oldest are dropped.
NOTES_KEPT = 64

Sequences = Mapping[str, int]  # by raw table


@dataclass(frozen=True, slots=True)
class Notes:
    """What builds of whole days have read; *floor* stands for the days whose note was dropped.

    A build reads what was built of *reach* days before its own as well.
    """

    days: Mapping[date, Sequences] = field(default_factory=dict)
    floor: Sequences = field(default_factory=dict)
    reach: int = 0

    def read(self, day: date) -> Sequences | None:
        """Return what the last build of *day* had read; None if it was never built as a whole."""
        return self.days.get(day) or self.floor or None

    def with_day(
        self, day: date, read: Sequences, *, reach: int = 0, kept: int = NOTES_KEPT
    ) -> Notes:
        """Return the notes after a build of *day*, with the oldest reading dropped if too many."""
        days = {**self.days, day: read}
        floor = self.floor
        while len(days) > kept:
            oldest = min(days, key=lambda each: (sum(days[each].values()), each))
            floor = days.pop(oldest)
        return Notes(days, floor, reach)

    def dump(self) -> str:
        days = {day.isoformat(): dict(read) for day, read in sorted(self.days.items())}
        told = {"days": days, "floor": dict(self.floor), "reach": self.reach}
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | None) -> Self:
        if text is None:
            return cls()
        told = json.loads(text)
        days = {date.fromisoformat(day): read for day, read in told["days"].items()}
        return cls(days, told["floor"], told.get("reach", 0))


@dataclass(frozen=True, slots=True)
class Due:
    """A day to be built again, and why; *sequence* is of the newest commit it has not read."""

    day: date
    reason: str
    sequence: int


def due_days(
    newest: Mapping[str, Mapping[date, int]], notes: Mapping[str, Notes], *, closed: date
) -> list[Due]:
    """Return the days before *closed* that a table is older than, the oldest first.

    Later days read earlier ones.

    Args:
        newest: by raw table and day, the sequence of the newest file with rows of that day.
        notes: of each built table.
        closed: days before it are complete.
    """
    recorded = {day for table in RECORDED for day in newest.get(table, ())}
    found = (_due(day, newest, notes) for day in sorted(recorded) if day < closed)
    return [due for due in found if due is not None]


def _due(
    day: date, newest: Mapping[str, Mapping[date, int]], notes: Mapping[str, Notes]
) -> Due | None:
    for table, note in notes.items():
        read = note.read(day)
        came = {raw: _newest(days, day, note.reach + LOOKS_BACK) for raw, days in newest.items()}
        if read is None:
            return Due(day, f"{table} was never built as a whole", max(came.values()))
        for raw in sorted(ancestors(table) & came.keys()):
            if came[raw] > read.get(raw, 0):
                return Due(day, f"{table} is older than {raw}", max(came.values()))
    return None


def _newest(days: Mapping[date, int], day: date, reach: int) -> int:
    """Return the newest sequence of *day* and the *reach* days before it."""
    near = (
        [each for each in days if timedelta(0) <= day - each <= reach * DAY]
        if reach > len(days)
        else [day - back * DAY for back in range(reach + 1)]
    )
    return max((days.get(each, 0) for each in near), default=0)


def ancestors(table: str) -> frozenset[str]:
    """Return the raw tables that *table* is built from, directly or not."""
    return frozenset(
        raw
        for source in INPUTS.get(table, ())
        for raw in (ancestors(source) if source in INPUTS else (source,))
    )


def closed_days(lake: Lakehouse, exchange: str, *, watermark: datetime) -> list[Due]:
    """Return the due days of *exchange* that *watermark* has closed, the oldest first."""
    newest = {raw: newest_by_day(lake, raw, exchange) for raw in RAW}
    notes = {table: notes_of(lake, table, exchange) for table in INPUTS}
    return due_days(newest, notes, closed=watermark.date())


def is_due(lake: Lakehouse, exchange: str, day: date) -> bool:
    """Tell whether *day*, which is over, is to be built (again) for *exchange*."""
    return bool(_due_within(lake, exchange, INPUTS, TimeWindow.of_day(day)))


def _due_within(
    lake: Lakehouse, exchange: str, tables: Iterable[str], window: TimeWindow
) -> list[Due]:
    """Return the days of *window*, all over, for which any of *tables* has not read all."""
    notes = {table: notes_of(lake, table, exchange) for table in tables}
    reach = max(note.reach for note in notes.values()) + LOOKS_BACK
    read = TimeWindow(window.start - reach * DAY, window.end)
    newest = {raw: newest_by_day(lake, raw, exchange, read) for raw in RAW}
    found = due_days(newest, notes, closed=window.end.date())
    return [due for due in found if due.day >= window.start.date()]


def newest_by_day(
    lake: Lakehouse, table: str, exchange: str, window: TimeWindow | None = None
) -> Mapping[date, int]:
    """Return the sequence of the newest file with rows of each day (of *window*)."""
    newest: defaultdict[date, int] = defaultdict(int)
    for file in lake.live_files(table, Selection(exchange, window)):
        if file.times is None:
            continue
        first, last = file.times
        spanned = TimeWindow(first, max(last, first + DAY / 86_400))
        within = spanned if window is None else spanned.intersect(window)
        for day in within.days() if within else ():
            newest[day] = max(newest[day], file.sequence)
    return newest


def notes_of(lake: Lakehouse, table: str, exchange: str) -> Notes:
    return Notes.parse(lake.note(table, _key(exchange)))


def note(
    lake: Lakehouse,
    table: str,
    exchange: str,
    window: TimeWindow,
    *,
    watermark: datetime,
    symbols: Iterable[str] | None,
    reach: int = 0,
) -> dict[str, Renewal]:
    """Return the note to write with a build of *window*; taken before anything is read.

    It is added to what the table says when the build lands: others build other days meanwhile.
    Nothing unless it is a whole day that *watermark* has closed, of every symbol, and what it is
    built from has its own note, and is not due on any of the *reach* days before it.
    """
    is_day = window == TimeWindow.of_day(window.start.date())
    if symbols is not None or not is_day or watermark < window.end:
        return {}
    day = window.start.date()
    read: dict[str, int] = {}
    for source in INPUTS[table]:
        if source not in INPUTS:
            inherited: Sequences | None = {source: lake.head(source)}
        else:
            inherited = notes_of(lake, source, exchange).read(day)
        if inherited is None:
            return {}
        for raw, sequence in inherited.items():
            read[raw] = min(sequence, read.get(raw, sequence))
    if reach:
        sources = [source for source in INPUTS[table] if source in INPUTS]
        before = TimeWindow(window.start - reach * DAY, window.start)
        if _due_within(lake, exchange, sources, before):
            return {}
    return {_key(exchange): lambda told: Notes.parse(told).with_day(day, read, reach=reach).dump()}


def _key(exchange: str) -> str:
    return f"days_read.{exchange}"
