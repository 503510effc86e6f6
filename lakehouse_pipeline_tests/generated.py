"""Recordings of a made-up market by a worker that loses its connection: hypothesis draws both.

The market trades on while nobody listens, around a UTC midnight or not, and its counter starts
from zero with each day. What was delivered is known, so every total has its truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.windows import TimeWindow, floor
from lakehouse_pipeline_tests.scripted import DAY, SECOND, START, SYMBOL, Script

LOT = Decimal("0.00000001")


@dataclass
class Recording:
    """A script and what is true of it."""

    script: Script
    now: float = 0.0  # seconds after the start
    lots: int = 0
    price: float = 100.0
    traded: float = -100.0
    live: list[str] = field(default_factory=list)  # sessions, older first
    alive_from: dict[str, float] = field(default_factory=dict)
    first_counter: dict[date, int] = field(default_factory=dict)
    last_counter: dict[date, int] = field(default_factory=dict)
    symbol: str = SYMBOL

    @property
    def span(self) -> TimeWindow:
        """The whole days the recording touches."""
        start = floor(self.script.time(-200), DAY)
        return TimeWindow(start, floor(self.script.time(self.now), DAY) + DAY)

    @property
    def counted(self) -> Decimal:
        """What the counter rose by between the first and the last delivery, by day."""
        return LOT * sum(
            self.last_counter[day] - self.first_counter[day] for day in self.last_counter
        )

    def connect(self) -> None:
        name = f"session-{len(self.alive_from)}"
        self.live.append(name)
        self.alive_from[name] = self.now
        self.script.mark(Mark.OPENED, name, self.now)
        self.now += 0.25
        self.script.snapshot(
            self.now, name, self.symbol, trade=self.traded, **self._state(), bid=None, ask=None
        )
        self._delivered()

    def disconnect(self, name: str, reason: Ending) -> None:
        self.live.remove(name)
        begun = self.alive_from[name]
        middle = (begun + self.now) / 2
        self.script.mark(Mark.ALIVE, name, begun, middle).mark(Mark.ALIVE, name, middle, self.now)
        self.script.mark(Mark.ENDED, name, self.now, reason=reason.value)

    def trade(self, lots: int, price: float, age: float) -> None:
        """A trade *age* seconds ago, delivered now to every session there is."""
        when = self.now - age
        day, newest = (self.script.time(t).date() for t in (when, max(self.traded, when)))
        if day != newest:
            when = self.now  # a trade of yesterday is not delivered after one of today
        if self.script.time(when).date() != self.script.time(self.traded).date():
            self.lots = 0
        self.lots += lots
        self.price, self.traded = price, when
        for name in self.live:
            values = self._state() if lots else {"last_price": price}
            self.script.update(self.now, name, self.symbol, trade=when, **values)
            self.now += 0.01
        if self.live and lots:
            self._delivered()

    def quote(self, bid: float, width: float) -> None:
        for name in self.live:
            self.script.update(self.now, name, self.symbol, bid=bid, ask=bid + width)
            self.now += 0.01

    def _state(self) -> dict[str, Any]:
        return {"last_price": self.price, "cumulative_volume": float(self.lots * LOT)}

    def _delivered(self) -> None:
        day = floor(self.script.time(self.traded), SECOND).date()
        # What was traded before the first observation of all is not counted.
        start = 0 if self.first_counter else self.lots
        self.first_counter.setdefault(day, start)
        self.last_counter[day] = self.lots


@st.composite
def recordings(
    draw: Callable[[Any], Any], *, overlaps: bool = True, midnight: bool = True
) -> Recording:
    """Return a recording of up to forty steps; half of them over a *midnight*, if it may be."""
    before_midnight = floor(START, DAY) + DAY - timedelta(seconds=25)
    start = draw(st.sampled_from([START, before_midnight])) if midnight else START
    recording = Recording(Script(start=start), lots=draw(st.integers(0, 10**12)))
    recording.connect()
    kinds = ["trade", "trade", "trade", "late", "quote", "wait", "outage"]
    if overlaps:
        kinds.append("handover")
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=40)):
        recording.now += draw(st.integers(1, 3000)) / 1000
        match kind:
            case "trade" | "late":
                lots = draw(st.one_of(st.just(0), st.integers(1, 10**9)))
                price = float(draw(st.integers(90, 110)))
                age = draw(st.integers(0, 12)) if kind == "late" else 0.3
                recording.trade(lots, price, age)
            case "quote":
                recording.quote(float(draw(st.integers(90, 110))), draw(st.integers(-1, 4)) / 4)
            case "wait":
                recording.now += draw(st.integers(1, 20))
            case "outage":
                for name in list(recording.live):
                    recording.disconnect(name, draw(st.sampled_from(Ending)))
                recording.now += draw(st.integers(1, 30)) / 2
                if draw(st.booleans()):
                    recording.trade(draw(st.integers(1, 10**9)), 95.0, 0.3)
                recording.now += draw(st.integers(1, 30)) / 2
                recording.connect()
            case "handover" if len(recording.live) == 1:
                recording.connect()
            case "handover":
                recording.disconnect(recording.live[0], Ending.HANDED_OVER)
    recording.now += 60.0
    for name in list(recording.live):
        recording.disconnect(name, Ending.STOPPED)
    return recording


DAMAGED = ["cumulative_volume", "bid", "last_price", "event_time", "received_at", "session_id"]


@st.composite
def damaged(draw: Callable[[Any], Any]) -> list[tuple[int, str, int]]:
    """Return what may be wrong with single rows: what to change, and into what."""
    changes = st.tuples(
        st.integers(0, 60), st.sampled_from(DAMAGED), st.sampled_from([0, 1, 2, 3, 4])
    )
    return draw(st.lists(changes, max_size=4))


def damage(quotes: pl.DataFrame, changes: list[tuple[int, str, int]]) -> pl.DataFrame:
    """Make spikes, falls and unknowns of counters and prices; rows late, early or a stranger's."""
    for row, column, how in changes:
        here = pl.int_range(pl.len()) == row % quotes.height
        old = pl.col(column)
        if column in ("event_time", "received_at"):
            new = old - [3, 40, 90, -3, -20][how] * SECOND
        elif column == "session_id":
            new = pl.lit("session-0" if how < 3 else "stranger")
        elif column == "last_price":
            new = old + how
        else:
            new = [old * 10, old / 2, pl.lit(None, pl.Float64), old + 1, old - 1e-8][how]
        quotes = quotes.with_columns(pl.when(here).then(new).otherwise(old).alias(column))
    return quotes
