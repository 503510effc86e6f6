"""Whatever the schedule: each visible outage is one gap, with its cause, around the true one."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse_pipeline.ingest.rows import (
    COVERAGE,
    QUOTES,
    TARGETS,
    Entry,
    build_frame,
    mark,
    merge_marks,
    micros,
)
from lakehouse_pipeline.ingest.session import SECOND, SessionRecorder
from lakehouse_pipeline.market.causes import Cause
from lakehouse_pipeline.market.coverage import LATENESS, Ending, Mark, watermark
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.tradingview.messages import Event, Heartbeat, QuoteCompleted, QuoteUpdate

START = datetime(2026, 3, 2, 10, tzinfo=UTC)
BUSY, QUIET = "X:BUSY", "X:QUIET"
HEARTBEAT = 10  # seconds
WATCHDOG = 22
BOUND = timedelta(seconds=HEARTBEAT) + LATENESS

# How the socket fell: closed under us, silent until the watchdog, silent and then alive again on
# the same session, or gone with its worker.
FALLS = {
    "closed": Cause.FEED_GAP,
    "half_open": Cause.FEED_GAP,
    "pause": Cause.FEED_GAP,
    "killed": Cause.WORKER_DOWN,
}


@dataclass(frozen=True)
class Outage:
    fall: str
    start: int  # seconds
    end: int


@st.composite
def schedules(draw) -> list[Outage]:
    """Outages far enough apart to be told apart, each longer than a heartbeat's period and L."""
    outages, at = [], 60
    for _ in range(draw(st.integers(0, 4))):
        at += draw(st.integers(0, 90))
        fall = draw(st.sampled_from(sorted(FALLS)))
        shortest = {"closed": 1, "killed": 1, "half_open": WATCHDOG + 1, "pause": 26}[fall]
        end = at + draw(st.integers(shortest, 240))
        outages.append(Outage(fall, at, end))
        at = end + 50
    return outages


class Worker:
    """The worker's loops, second by second, without a socket."""

    def __init__(self, chance: random.Random) -> None:
        self.entries: list[Entry] = []
        self._chance = chance
        self._volume = dict.fromkeys((BUSY, QUIET), 0.0)
        self._sessions = 0

    def connect(self, second: int) -> None:
        self._sessions += 1
        self.opened = second
        self.session = SessionRecorder(f"session-{self._sessions}", opened_at=self.at(second))
        self.entries += self.session.opened("hello")
        self.session.subscribe([BUSY, QUIET])
        loads = [self._update(name, second, lp=1.0) for name in (BUSY, QUIET)]
        completed = [QuoteCompleted("qs", name) for name in (BUSY, QUIET)]
        self.entries += self.session.receive([*loads, *completed], self.at(second))

    def hear(self, second: int) -> None:
        beat, rest = divmod(second - self.opened, HEARTBEAT)
        events: list[Event] = [Heartbeat(beat)] if rest == 0 and beat else []
        for name, share in ((BUSY, 0.8), (QUIET, 0.02)):
            if self._chance.random() < share:
                self._volume[name] += 1.0
                events.append(self._update(name, second))
        if events:
            self.entries += self.session.receive(events, self.at(second))

    def fall(self, outage: Outage) -> None:
        match outage.fall:
            case "closed":
                self.entries += self.session.ended(Ending.CLOSED)
            case "half_open":
                self.entries += self.session.ended(Ending.SILENT)
            case "killed":  # the next worker finds the session open, as ``adoption.settle`` does
                at, crashed = self.session.marked_until, Ending.CRASHED.value
                self.entries.append(
                    mark(self.session.session_id, Mark.ENDED, at, at, reason=crashed)
                )

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        frames = []
        for name in (QUOTES, COVERAGE):
            numbered = [(n, row) for n, (kind, row) in enumerate(self.entries, 1) if kind == name]
            rows = merge_marks(numbered) if name == COVERAGE else numbered
            frames.append(build_frame(TARGETS[name], rows, exchange="X", writer_id="w"))
        return frames[0], frames[1]

    def _update(self, name: str, second: int, **values: float) -> QuoteUpdate:
        told = {"volume": self._volume[name], "lp_time": self.at(second) // SECOND, **values}
        return QuoteUpdate("qs", name, "ok", told, "")

    @staticmethod
    def at(second: int) -> int:
        return micros(START) + second * SECOND


def play(outages: list[Outage], chance: random.Random) -> tuple[pl.DataFrame, pl.DataFrame]:
    worker = Worker(chance)
    worker.connect(0)
    second = 0
    for outage in [*outages, None]:
        until = outage.start if outage else second + 120
        for now in range(second + 1, until):
            worker.hear(now)
            worker.entries += worker.session.tick()
        if outage is None:
            worker.entries += worker.session.ended(Ending.STOPPED)
            break
        worker.fall(outage)
        second = outage.end
        if outage.fall != "pause":
            worker.connect(second)
    return worker.tables()


@settings(max_examples=60, deadline=None)
@given(schedules(), st.randoms(use_true_random=False))
def test_every_outage_is_one_gap_with_its_cause_around_the_true_one(outages, chance):
    quotes, coverage = play(outages, chance)

    until = watermark(coverage, "X")
    assert until is not None
    gaps = find_gaps(quotes, coverage, TimeWindow.of_day(START.date()), until)

    for symbol in (BUSY, QUIET):
        found = gaps.filter(symbol=symbol).sort("start")
        assert found["cause"].to_list() == [FALLS[outage.fall].value for outage in outages]
        for outage, start, end in zip(outages, found["start"], found["end"], strict=True):
            true_start = START + timedelta(seconds=outage.start)
            true_end = START + timedelta(seconds=outage.end)
            assert true_start - BOUND <= start <= true_start
            assert true_end <= end <= true_end + BOUND
