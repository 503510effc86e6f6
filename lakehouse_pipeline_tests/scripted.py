"""Quotes and coverage as a worker lands them, from a few words; and bars made the slow way.

``Script`` keeps the state a session merges, so a test says only what changed. ``slow_bars`` is the
meaning of a bar in plain Python and decimals: what the fast kernel is compared with.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from operator import itemgetter
from typing import Any

import polars as pl

from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.quotes import Kind, event_time, frame
from lakehouse_pipeline.market.schemas import COVERAGE, QUOTES
from lakehouse_pipeline.market.windows import TimeWindow, floor

SYMBOL = "BINANCE:BTCUSDT"
START = datetime(2026, 1, 5, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
LATENESS = timedelta(seconds=5)


@dataclass
class Script:
    """Times are seconds after *start*; rows are numbered as they are written."""

    start: datetime = START
    writer: str = "writer-1"
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    marks: list[tuple[Any, ...]] = field(default_factory=list)
    state: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    sequence: int = 0

    def time(self, seconds: float) -> datetime:
        return self.start + timedelta(seconds=seconds)

    def session(
        self,
        name: str,
        *,
        alive: tuple[float, float],
        ended: Ending | None = None,
        opened: float | None = None,
        pieces: int = 1,
    ) -> Script:
        """A session that had frames over *alive*, told in *pieces* commits."""
        first, last = alive
        self.mark(Mark.OPENED, name, first if opened is None else opened)
        edges = [first + (last - first) * n / pieces for n in range(pieces + 1)]
        for a, b in pairwise(edges):
            self.mark(Mark.ALIVE, name, a, b)
        if ended is not None:
            self.mark(Mark.ENDED, name, last, reason=ended.value)
        return self

    def mark(
        self,
        kind: Mark,
        session: str,
        start: float,
        end: float | None = None,
        *,
        symbol: str | None = None,
        reason: str | None = None,
    ) -> Script:
        self.sequence += 1
        points = self.time(start), self.time(start if end is None else end)
        told = (reason, None, self.writer, self.sequence)
        self.marks.append(("BINANCE", session, kind.value, symbol, *points, *told))
        return self

    def snapshot(
        self, at: float, session: str = "s1", symbol: str = SYMBOL, **values: Any
    ) -> Script:
        """The first data of *symbol* on *session*: a subscribed mark and a restore row."""
        self.mark(Mark.SUBSCRIBED, session, at, symbol=symbol)
        return self.update(at, session, symbol, kind=Kind.RESTORE, **values)

    def update(
        self,
        at: float,
        session: str = "s1",
        symbol: str = SYMBOL,
        *,
        kind: Kind | None = None,
        trade: float | None = None,
        **values: Any,
    ) -> Script:
        """One update received *at*; *trade* is its ``last_time``, the values are columns."""
        state = self.state.setdefault((session, symbol), {})
        if trade is not None:
            values["last_time"] = floor(self.time(trade), SECOND)
        state |= values
        self.sequence += 1
        if kind is None:
            touched = ("last_price", Kind.PRICE), ("cumulative_volume", Kind.VOLUME)
            kinds = [k for name, k in (*touched, ("last_time", Kind.TIME)) if name in values]
            kind = kinds[0] if kinds else Kind.QUOTE
        received = self.time(at)
        row = dict.fromkeys(QUOTES) | state
        row |= {
            "exchange": symbol.split(":", maxsplit=1)[0],
            "symbol": symbol,
            "event_time": event_time(kind, state.get("last_time"), received),
            "received_at": received,
            "kind": kind.value,
            "changed": ",".join(name for name in QUOTES if name in values),
            "session_id": session,
            "writer_id": self.writer,
            "sequence": self.sequence,
        }
        self.rows.append(tuple(row[name] for name in QUOTES))
        return self

    def trade(self, at: float, price: float, volume: float, **more: Any) -> Script:
        """A trade of the second before it was received, with price and counter."""
        second = more.pop("trade", at - 1)
        return self.update(at, trade=second, last_price=price, cumulative_volume=volume, **more)

    @property
    def quotes(self) -> pl.DataFrame:
        return frame(self.rows)

    @property
    def coverage(self) -> pl.DataFrame:
        return pl.DataFrame(self.marks, schema=COVERAGE, orient="row")


def window(start: float, end: float, *, of: datetime = START) -> TimeWindow:
    return TimeWindow(of + timedelta(seconds=start), of + timedelta(seconds=end))


def decimal(value: float) -> Decimal:
    return Decimal(repr(value))


def slow_bars(
    quotes: pl.DataFrame,
    coverage: pl.DataFrame,
    within: TimeWindow,
    watermark: datetime,
    step: timedelta,
) -> list[dict[str, Any]]:
    """Return prices, volume and counts of each bar, one row at a time. One session per instant."""
    unique = {(row["writer_id"], row["sequence"]): row for row in quotes.to_dicts()}
    by_symbol = defaultdict(list)
    for row in unique.values():
        by_symbol[row["symbol"]].append(row)
    bars = []
    for symbol, rows in sorted(by_symbol.items()):
        booked = _slow_volume(rows, _slow_runs(coverage, symbol), floor(within.start, DAY))
        observed = [
            row
            for row in sorted(rows, key=_happened)
            if row["kind"] in ("price", "volume", "time") and row["last_price"] is not None
        ]
        restored = [
            row
            for row in sorted(rows, key=_happened)
            if row["kind"] == "restore" and row["last_price"] is not None
        ]
        intervals = defaultdict(list)
        for row in observed:
            intervals[floor(row["event_time"], step)].append(row)
        for opens, inside in sorted(intervals.items()):
            if opens < within.start or opens + step > min(within.end, watermark):
                continue
            first_second = floor(inside[0]["event_time"], SECOND)
            known = sorted(
                (
                    of_kind[bisect_left(of_kind, first_second, key=itemgetter("event_time")) - 1]
                    for of_kind in (observed, restored)
                    if of_kind and of_kind[0]["event_time"] < first_second
                ),
                key=_came,
            )
            volumes = [booked[row["sequence"]] for row in inside]
            prices = [row["last_price"] for row in inside]
            seconds = {floor(row["event_time"], SECOND) for row in inside}
            bars.append(
                {
                    "symbol": symbol,
                    "open_time": opens,
                    "open": prices[0],
                    "high": max(prices),
                    "low": min(prices),
                    "close": prices[-1],
                    "prev_close": known[-1]["last_price"] if known else None,
                    "volume": None
                    if all(v is None for v in volumes)
                    else float(sum((v or Decimal(0) for v in volumes), start=Decimal(0))),
                    "updates": len(inside),
                    "quote_updates": sum(
                        row["kind"] == "quote" and floor(row["event_time"], SECOND) in seconds
                        for row in rows
                    ),
                    "late_updates": sum(
                        row["received_at"] > floor(row["event_time"], SECOND) + SECOND + LATENESS
                        for row in inside
                    ),
                    "observed_seconds": len(seconds),
                }
            )
    return bars


def _came(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["received_at"], row["writer_id"], row["sequence"]


def _happened(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["event_time"], row["received_at"], row["writer_id"], row["sequence"]


def _slow_runs(coverage: pl.DataFrame, symbol: str) -> list[tuple[datetime, datetime]]:
    """Return when *symbol* was seen in received time; marks without shed or unsubscribed."""
    marks = coverage.to_dicts()
    pieces = []
    for subscribed in (m for m in marks if m["kind"] == "subscribed" and m["symbol"] == symbol):
        first = subscribed["start"]
        pieces.append((first, first))
        pieces += [
            (max(first, m["start"]), m["end"])
            for m in marks
            if m["kind"] == "alive"
            and m["session_id"] == subscribed["session_id"]
            and m["end"] > first
        ]
    runs: list[tuple[datetime, datetime]] = []
    for a, b in sorted(pieces):
        if runs and a <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(b, runs[-1][1]))
        else:
            runs.append((a, b))
    return runs


def _slow_volume(
    rows: list[dict[str, Any]], runs: list[tuple[datetime, datetime]], since: datetime
) -> dict[int, Decimal | None]:
    """Return by sequence what a row adds to its bar; None while the counter is unknown."""
    booked: dict[int, Decimal | None] = {}
    days = defaultdict(list)
    for row in rows:
        if row["kind"] != "quote":
            days[floor(row["last_time"] or row["received_at"], DAY)].append(row)
    for day, of_day in days.items():
        level, level_run = None, None
        before = [row["received_at"] for other in days if other < day for row in days[other]]
        for row in sorted(of_day, key=lambda r: (r["received_at"], r["writer_id"], r["sequence"])):
            run = sum(start <= row["received_at"] for start, _ in runs) - 1
            anchored = run >= 0 and runs[run][0] <= day and day >= since
            anchored = anchored or any(
                runs[run][0] <= received < row["received_at"] for received in before
            )
            booked[row["sequence"]] = None if level is None and not anchored else Decimal(0)
            shown = "cumulative_volume" in row["changed"] or row["kind"] == "restore"
            if not shown or row["cumulative_volume"] is None:
                continue
            value = decimal(row["cumulative_volume"])
            if row["kind"] != "restore":
                if level is None and anchored:
                    booked[row["sequence"]] = value
                elif level is not None and run == level_run:
                    booked[row["sequence"]] = max(value - level, Decimal(0))
            level = value if level is None else max(level, value)
            level_run = run
    return booked
