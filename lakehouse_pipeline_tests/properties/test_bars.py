"""Bars are a pure function of the rows: order, repeats and the window asked for do not show."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.market.bars import build_bars, build_bars_1s, with_coverage
from lakehouse_pipeline.market.quality import ohlc_violations, order_violations
from lakehouse_pipeline.market.rolled import judged
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.windows import MINUTE, SECOND, TimeWindow
from lakehouse_pipeline_tests.generated import Recording, recordings
from lakehouse_pipeline_tests.scripted import slow_bars


def built(recording: Recording, step=SECOND, within: TimeWindow | None = None) -> pl.DataFrame:
    script = recording.script
    span = within or recording.span
    return build_bars(
        script.quotes,
        script.coverage,
        span,
        recording.span.end,
        step=step,
        since=recording.span.start,
    )


@given(recordings(overlaps=False), st.sampled_from([SECOND, 10 * SECOND, MINUTE]))
def test_bars_are_what_plain_python_makes_of_the_rows(recording: Recording, step):
    script, span = recording.script, recording.span
    bars = built(recording, step)

    slow = slow_bars(script.quotes, script.coverage, span, span.end, step)

    updates = pl.sum_horizontal("price_updates", "volume_updates", "time_updates")
    names = slow[0].keys() if slow else ["open_time"]
    assert bars.with_columns(updates=updates).select(names).to_dicts() == slow


@given(recordings(), st.sampled_from([10 * SECOND, MINUTE]))
def test_rolling_up_seconds_is_building_from_quotes(recording: Recording, step):
    direct = built(recording, step)

    rolled = with_coverage(roll_up(built(recording), step), recording.script.coverage, step)

    assert direct.drop("spread").equals(rolled.drop("spread"))
    assert direct["spread"].to_list() == pytest.approx(rolled["spread"].to_list())


@given(recordings(), st.sampled_from([10 * SECOND, MINUTE]), st.integers(0, 300))
def test_a_reader_s_roll_up_is_the_bars_closed_so_far_and_what_is_forming(
    recording: Recording, step, seconds: int
):
    script, closed = recording.script, recording.script.start + seconds * SECOND
    since, span = recording.span.start, recording.span
    stored = build_bars_1s(script.quotes, script.coverage, span, closed, since=since)
    direct = build_bars(script.quotes, script.coverage, span, closed, step=step, since=since)

    read = judged(roll_up(stored, step), stored, script.coverage, step=step, closed=closed)

    forming = pl.col("open_time") + step > closed
    assert read.filter(~forming).drop("spread").equals(direct.drop("spread"))
    assert read.filter(forming)["state"].unique().to_list() in ([], ["forming"])


@given(recordings(), st.randoms(use_true_random=False))
def test_order_and_repeats_of_the_rows_change_nothing(recording: Recording, random):
    script, span = recording.script, recording.span
    expected = build_bars_1s(script.quotes, script.coverage, span, span.end)
    rows = [random.choice(script.rows) for _ in script.rows] + script.rows
    marks = [random.choice(script.marks) for _ in script.marks] + script.marks
    random.shuffle(rows)
    random.shuffle(marks)
    script.rows, script.marks = rows, marks

    assert build_bars_1s(script.quotes, script.coverage, span, span.end).equals(expected)


@given(recordings(), st.integers(0, 130))
def test_the_parts_of_a_window_make_the_whole(recording: Recording, seconds: int):
    span = recording.span
    cut = recording.script.start + seconds * SECOND
    parts = [TimeWindow(span.start, cut), TimeWindow(cut, span.end)]

    joined = pl.concat([built(recording, within=part) for part in parts]).sort("open_time")

    assert joined.equals(built(recording))


@given(recordings())
def test_bars_are_in_order_and_possible(recording: Recording):
    bars = built(recording)

    assert ohlc_violations(bars).is_empty()
    assert order_violations(bars).is_empty()


@given(recordings(), st.integers(0, 100))
def test_a_bar_once_closed_is_not_changed_by_what_comes_in_time(recording: Recording, seconds: int):
    """A tick sees the rows received so far; a rebuild sees all. Late rows aside, they agree."""
    script, span = recording.script, recording.span
    at = script.start + seconds * SECOND
    late = pl.col("received_at") > pl.col("event_time") + 6 * SECOND
    quotes = script.quotes.filter(~late | (pl.col("kind") == "restore"))
    then = quotes.filter(pl.col("received_at") <= at)

    tick = build_bars_1s(then, script.coverage, span, at - 6 * SECOND)
    rebuilt = build_bars_1s(quotes, script.coverage, span, at - 6 * SECOND)

    assert tick.equals(rebuilt)
