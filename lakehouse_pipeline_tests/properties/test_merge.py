"""Merging is pure: order, repetition and the window asked for do not show."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.market.bars import build_bars
from lakehouse_pipeline.market.merge import merge
from lakehouse_pipeline.market.quality import ohlc_violations, order_violations
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import MINUTE, floor
from lakehouse_pipeline_tests.generated import Recording, recordings

VALUES = ["open", "high", "low", "close", "volume"]


@st.composite
def histories(draw, recording: Recording) -> pl.DataFrame:
    """Official bars of any of the minutes around *recording*."""
    first = floor(recording.script.start, MINUTE) - 2 * MINUTE
    prices = st.integers(90, 110).map(float)
    rows = []
    for minute in sorted(draw(st.sets(st.integers(0, 8)))):
        opened, closed = draw(prices), draw(prices)
        volume = draw(st.none() | st.integers(0, 10**9).map(lambda lots: lots / 1000))
        high, low = max(opened, closed, draw(prices)), min(opened, closed, draw(prices))
        bar = (opened, high, low, closed, volume)
        open_time = first + minute * MINUTE
        rows.append(("BINANCE", recording.symbol, open_time, *bar, open_time + timedelta(hours=1)))
    return pl.DataFrame(rows, schema=HISTORY, orient="row")


@st.composite
def repaired(draw) -> tuple[Recording, pl.DataFrame]:
    recording = draw(recordings())
    return recording, draw(histories(recording))


def streamed(recording: Recording) -> pl.DataFrame:
    script, span = recording.script, recording.span
    return build_bars(script.quotes, script.coverage, span, span.end, step=MINUTE, since=span.start)


def merged(recording: Recording, bars: pl.DataFrame, history: pl.DataFrame) -> pl.DataFrame:
    return merge(bars, history, recording.script.coverage, recording.span.end)


@given(repaired())
def test_merging_again_changes_nothing(case):
    recording, history = case
    once = merged(recording, streamed(recording), history)

    assert merged(recording, once, history).equals(once)


@given(repaired(), st.randoms(use_true_random=False))
def test_order_and_repeats_of_history_change_nothing(case, random):
    recording, history = case
    expected = merged(recording, streamed(recording), history)
    rows = history.rows() * 2
    random.shuffle(rows)
    shuffled = pl.DataFrame(rows, schema=HISTORY, orient="row")

    assert merged(recording, streamed(recording), shuffled).equals(expected)


@given(repaired(), st.integers(0, 8))
def test_the_parts_of_a_window_make_the_whole(case, minute: int):
    recording, history = case
    cut = floor(recording.script.start, MINUTE) + minute * MINUTE
    bars, opens = streamed(recording), pl.col("open_time")
    parts = [
        merged(recording, bars.filter(part), history.filter(part))
        for part in (opens < cut, opens >= cut)
    ]

    assert pl.concat(parts).sort("open_time").equals(merged(recording, bars, history))


@given(repaired())
def test_history_that_comes_in_two_parts_ends_the_same(case):
    recording, history = case
    first = merged(recording, streamed(recording), history[::2])

    assert merged(recording, first, history).equals(merged(recording, streamed(recording), history))


@given(repaired())
def test_bars_are_possible_and_what_was_wholly_seen_is_untouched(case):
    recording, history = case
    bars = merged(recording, streamed(recording), history)
    whole = bars.filter(pl.col("covered_seconds") == 60)
    filled = bars.filter(pl.col("source") != "stream")

    assert ohlc_violations(bars).is_empty()
    assert order_violations(bars).is_empty()
    assert whole.select(VALUES).equals(
        streamed(recording).filter(pl.col("covered_seconds") == 60).select(VALUES)
    )
    official = filled.select("open_time").join(history, on="open_time", how="left")
    assert filled.select(VALUES).equals(official.select(VALUES))
