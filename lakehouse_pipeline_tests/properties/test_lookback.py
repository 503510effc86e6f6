"""A short reading that says it suffices gives the bars of the long one, whatever the rows are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
from hypothesis import event, given
from hypothesis import strategies as st

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.lookback import unsettled
from lakehouse_pipeline.market.volume import CounterKind
from lakehouse_pipeline.market.windows import DAY, SECOND, TimeWindow, floor
from lakehouse_pipeline_tests.generated import Recording, recordings
from lakehouse_pipeline_tests.scripted import SYMBOL, Script

KINDS = [{}, {SYMBOL: CounterKind.ROLLING}]
COLUMNS = ["cumulative_volume", "bid", "last_price", "event_time", "received_at", "session_id"]


@st.composite
def damaged(draw: Any) -> pl.DataFrame:
    """Return what may be wrong with single rows: what to change, and into what."""
    changes = st.tuples(
        st.integers(0, 60), st.sampled_from(COLUMNS), st.sampled_from([0, 1, 2, 3, 4])
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


@given(
    recordings(),
    damaged(),
    st.floats(0.1, 0.9),
    st.sampled_from([10, 60, 300]),
    st.sampled_from([3, 20, 20, 60]),
    st.sampled_from(KINDS),
)
def test_bars_of_settled_symbols_are_those_of_the_whole_day(
    recording: Recording, changes, share: float, length: int, reach: int, kinds
):
    script = recording.script
    quotes, coverage = damage(script.quotes, changes), script.coverage
    start = floor(script.time(share * (recording.now - 60)), SECOND)
    window = TimeWindow(start, min(start + length * SECOND, floor(start, DAY) + DAY))
    since = max(start - reach * SECOND, floor(start, DAY))
    if since == start:
        return
    happened, received = pl.col("event_time"), pl.col("received_at")
    watermark = window.end + timedelta(days=2)
    # What the last tick had: all that happened before the window, and what had come by its start.
    then = quotes.filter((happened < start) | (received <= start + 5 * SECOND))
    before = TimeWindow(since, start)
    stored = build_bars_1s(then, coverage, before, watermark, kinds=kinds)
    short = quotes.filter((happened >= since) | (received >= since))

    left = unsettled(short, stored, coverage, window, since, kinds=kinds)

    whole = build_bars_1s(quotes, coverage, window, watermark, kinds=kinds)
    mine = build_bars_1s(short, coverage, window, watermark, kinds=kinds)
    event("unsettled" if left else "settled, no bars" if whole.is_empty() else "settled")
    here = ~pl.col("symbol").is_in(left)
    assert mine.filter(here).equals(whole.filter(here))


def test_a_lively_symbol_is_settled_and_a_quiet_one_is_not():
    script = Script()
    for name in ("BINANCE:LIVELY", "BINANCE:QUIET"):
        script.snapshot(0.2, symbol=name, last_price=100.0, cumulative_volume=5.0, trade=-3)
        script.update(0.3, symbol=name, bid=99.0, ask=101.0)
    for second in range(2, 200):
        script.trade(second + 0.6, 100.0 + second % 7, 5.0 + second, symbol="BINANCE:LIVELY")
    script.trade(150.6, 100.5, 7.0, symbol="BINANCE:QUIET")
    script.session("s1", alive=(0, 220))
    quotes, coverage = script.quotes, script.coverage
    start, since = script.time(140), script.time(100)
    watermark = script.time(190)
    window = TimeWindow(start, watermark)
    bars = build_bars_1s(quotes, coverage, TimeWindow(since, start), watermark)
    short = quotes.filter(pl.col("received_at") >= since)

    assert unsettled(short, bars, coverage, window, since) == ["BINANCE:QUIET"]
