"""Which days are older than what they were built from: the one rule, and the notes it needs.

A build of a whole closed day notes, with its rows, the newest commit of each raw table it has read;
what is built from built tables inherits their notes. A day is due when a raw table has a newer file
with rows of it, however old the day is, or when it was never built as a whole. Whoever rebuilds
(the catch-up sensor, a person, the command line) leaves the same notes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Self

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import DAY, TimeWindow

QUOTES, COVERAGE, HISTORY = "raw.quotes", "raw.coverage", "market.history_1m"
# What each table is built from. History is fetched, not built: it counts as raw here.
INPUTS = {
    "market.bars_1s": (QUOTES, COVERAGE),
    "market.bars_1m": ("market.bars_1s", HISTORY, COVERAGE),
    "market.gaps": (QUOTES, COVERAGE),
    "market.indicators_1m": ("market.bars_1m", "market.gaps", "raw.indicators"),
    "market.reconciliation": ("market.bars_1m", "market.gaps", HISTORY),
}
RAW = (QUOTES, COVERAGE, HISTORY, "raw.indicators")
# Without these a day has nothing to be built from.
RECORDED = (QUOTES, COVERAGE)
# Notes are a property of the table and so in each of its metadata files: the oldest are dropped.
NOTES_KEPT = 64

Sequences = Mapping[str, int]  # by raw table


@dataclass(frozen=True, slots=True)
class Notes:
    """What builds of whole days have read; *floor* stands for the days whose note was dropped."""

    days: Mapping[date, Sequences] = field(default_factory=dict)
    floor: Sequences = field(default_factory=dict)

    def read(self, day: date) -> Sequences | None:
        """Return what the last build of *day* had read; None if it was never built as a whole."""
        return self.days.get(day) or self.floor or None

    def with_day(self, day: date, read: Sequences, *, kept: int = NOTES_KEPT) -> Notes:
        """Return the notes after a build of *day*, with the oldest reading dropped if too many."""
        days = {**self.days, day: read}
        floor = self.floor
        while len(days) > kept:
            oldest = min(days, key=lambda each: (sum(days[each].values()), each))
            floor = days.pop(oldest)
        return Notes(days, floor)

    def dump(self) -> str:
        days = {day.isoformat(): dict(read) for day, read in sorted(self.days.items())}
        return json.dumps({"days": days, "floor": dict(self.floor)}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | None) -> Self:
        if text is None:
            return cls()
        told = json.loads(text)
        days = {date.fromisoformat(day): read for day, read in told["days"].items()}
        return cls(days, told["floor"])


@dataclass(frozen=True, slots=True)
class Due:
    """A day to be built again, and why; *sequence* is of the newest commit it has not read."""

    day: date
    reason: str
    sequence: int


def due_days(
    newest: Mapping[str, Mapping[date, int]], notes: Mapping[str, Notes], *, closed: date
) -> list[Due]:
    """Return the days before *closed* that a table is older than, the newest day first.

    Args:
        newest: by raw table and day, the sequence of the newest file with rows of that day.
        notes: of each built table.
        closed: days before it are complete.
    """
    recorded = {day for table in RECORDED for day in newest.get(table, ())}
    found = (_due(day, newest, notes) for day in sorted(recorded, reverse=True) if day < closed)
    return [due for due in found if due is not None]


def _due(
    day: date, newest: Mapping[str, Mapping[date, int]], notes: Mapping[str, Notes]
) -> Due | None:
    here = {table: days[day] for table, days in newest.items() if day in days}
    for table, note in notes.items():
        read = note.read(day)
        if read is None:
            return Due(day, f"{table} was never built as a whole", max(here.values()))
        for raw in sorted(ancestors(table) & here.keys()):
            if here[raw] > read.get(raw, 0):
                return Due(day, f"{table} is older than {raw}", max(here.values()))
    return None


def ancestors(table: str) -> frozenset[str]:
    """Return the raw tables that *table* is built from, directly or not."""
    return frozenset(
        raw
        for source in INPUTS.get(table, ())
        for raw in (ancestors(source) if source in INPUTS else (source,))
    )


def closed_days(lake: Lakehouse, exchange: str, *, watermark: datetime) -> list[Due]:
    """Return the due days of *exchange* that *watermark* has closed, the newest first."""
    newest = {raw: newest_by_day(lake, raw, exchange) for raw in RAW}
    notes = {table: notes_of(lake, table, exchange) for table in INPUTS}
    return due_days(newest, notes, closed=watermark.date())


def newest_by_day(lake: Lakehouse, table: str, exchange: str) -> Mapping[date, int]:
    """Return the sequence of the newest file with rows of each day."""
    newest: defaultdict[date, int] = defaultdict(int)
    for file in lake.touched_since(table, 0, exchange):
        if file.times is None:
            continue
        first, last = file.times
        for day in TimeWindow(first, max(last, first + DAY / 86_400)).days():
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
) -> dict[str, str]:
    """Return the note to write with a build of *window*; taken before anything is read.

    Nothing unless it is a whole day that *watermark* has closed, of every symbol, and what it is
    built from has its own note.
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
    return {_key(exchange): notes_of(lake, table, exchange).with_day(day, read).dump()}


def _key(exchange: str) -> str:
    return f"days_read.{exchange}"
