"""A day of a market that is silent most of the time: nothing of it is an outage."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import polars as pl
import pytest

from lakehouse_pipeline.ingest.rows import (
    COVERAGE,
    QUOTES,
    TARGETS,
    build_frame,
    merge_marks,
    micros,
)
from lakehouse_pipeline.ingest.session import SECOND, SessionRecorder
from lakehouse_pipeline.market.coverage import Ending, watermark
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.tradingview.messages import Heartbeat, QuoteCompleted, QuoteUpdate

START = datetime(2026, 3, 2, tzinfo=UTC)
SYMBOLS = [f"X:S{number}" for number in range(5)]
EMPTY = 0.6  # of a symbol's minutes


def record_a_day(seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Play 24 hours second by second, as the worker's loops would; return quotes and coverage."""
    chance = random.Random(seed)
    start = micros(START)
    session = SessionRecorder("s1", opened_at=start)
    session.subscribe(SYMBOLS)
    entries = session.opened("hello")
    volume = dict.fromkeys(SYMBOLS, 0.0)
    busy: list[str] = []
    subscribed = SYMBOLS
    for second in range(86_400):
        at = start + second * SECOND + chance.randrange(SECOND)
        events: list = [Heartbeat(second // 10 + 1)] if second % 10 == 0 else []
        for name in subscribed:
            values = {"lp": 1.0, "lp_time": at // SECOND, "volume": volume[name]}
            events += [QuoteUpdate("qs", name, "ok", values, ""), QuoteCompleted("qs", name)]
        if second % 60 == 0:
            busy = [name for name in SYMBOLS if chance.random() >= EMPTY]
        for name in busy:
            if chance.random() < 0.3:
                volume[name] += 1.0
                values = {"volume": volume[name], "lp_time": at // SECOND}
                events.append(QuoteUpdate("qs", name, "ok", values, ""))
        if events:
            entries += session.receive(events, at)
        entries += session.tick()
        subscribed, marks = session.stalled()
        entries += marks
    entries += session.ended(Ending.STOPPED)
    frames = []
    for name in (QUOTES, COVERAGE):
        rows = [(number, row) for number, (kind, row) in enumerate(entries, 1) if kind == name]
        rows = merge_marks(rows) if name == COVERAGE else rows
        frames.append(build_frame(TARGETS[name], rows, exchange="X", writer_id="w"))
    return frames[0], frames[1]


@pytest.mark.parametrize("seed", [1, 2, 14])
def test_a_day_of_empty_minutes_has_no_outage_and_no_reconnect(seed: int):
    quotes, coverage = record_a_day(seed)

    minutes = quotes.filter(pl.col("kind") == "volume").select(
        "symbol", pl.col("event_time").dt.truncate("1m")
    )
    assert 0.55 < 1 - minutes.unique().height / (1440 * len(SYMBOLS)) < 0.65
    assert coverage["kind"].value_counts().filter(kind="stalled").is_empty()
    assert coverage.filter(kind="opened").height == 1
    until = watermark(coverage, "X")
    assert until is not None
    assert find_gaps(quotes, coverage, TimeWindow.of_day(START.date()), until).is_empty()
