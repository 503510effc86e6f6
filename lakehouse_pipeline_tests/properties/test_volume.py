"""Volume is conserved: bars, gaps and the residual are what the counter did, to the last digit."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.quality import unconserved_volume
from lakehouse_pipeline.market.windows import DAY, TimeWindow
from lakehouse_pipeline_tests.generated import LOT, Recording, recordings
from lakehouse_pipeline_tests.scripted import START, Script, decimal, window

HOUR = window(0, 3600)


def total(volumes: pl.Series) -> Decimal:
    return sum((decimal(v) for v in volumes.drop_nulls()), start=Decimal(0))


@given(recordings())
def test_bars_and_gaps_are_all_the_counter_showed(recording: Recording):
    script, span = recording.script, recording.span
    watermark = script.time(recording.now - 5)

    bars = build_bars_1s(script.quotes, script.coverage, span, watermark)
    gaps = find_gaps(script.quotes, script.coverage, span, watermark)

    assert total(bars["volume"]) + total(gaps["missed_volume"]) == recording.counted


@given(recordings())
def test_each_day_is_conserved(recording: Recording):
    script = recording.script
    watermark = script.time(recording.now - 5)
    for day in recording.span.days():
        of_day = TimeWindow.of_day(day)
        bars = build_bars_1s(script.quotes, script.coverage, of_day, watermark)
        gaps = find_gaps(script.quotes, script.coverage, of_day, watermark)

        assert unconserved_volume(bars, gaps).is_empty()


@st.composite
def counters(draw) -> list[int]:
    """Any sequence of counters: rising mostly, with falls, jumps and resets."""
    values = [draw(st.integers(0, 10**10))]
    for _ in range(draw(st.integers(1, 30))):
        step = draw(
            st.one_of(st.integers(0, 1000), st.integers(0, 1000), st.integers(-(10**9), 10**9))
        )
        values.append(max(values[-1] + step, 0))
    return values


def bars_of(values: list[int]) -> pl.DataFrame:
    script = Script().session("s1", alive=(0, 3600))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=float(values[0] * LOT), trade=-60)
    for n, value in enumerate(values[1:]):
        script.trade(11 + 3 * n, 1.0, float(value * LOT))
    return build_bars_1s(script.quotes, script.coverage, HOUR, START + DAY)


@given(counters())
def test_any_counter_books_what_its_level_rose_by(values: list[int]):
    bars = bars_of(values)

    known = bars.drop_nulls("counter_start")
    rise = decimal(known["counter_end"].max()) - decimal(known["counter_start"].min())
    assert total(bars["volume"]) == rise
    assert (bars["volume"].drop_nulls() >= 0).all()
    assert rise <= (max(values) - min(values)) * LOT


@given(
    st.integers(6, 14),
    st.integers(1, 2000),
    st.lists(st.integers(1, 1000), min_size=2, max_size=20),
    st.integers(1, 19),
)
def test_no_bar_depends_on_how_far_its_counter_still_rises(power, below, steps, early):
    values = [10**power - below]
    for step in steps:
        values.append(values[-1] + step)

    bars = bars_of(values)

    assert bars_of(values[: 1 + early])["volume"].equals(bars["volume"][:early])
    assert bars["volume"].to_list() == [float(step * LOT) for step in steps]


@given(
    st.lists(st.integers(1, 1000), min_size=4, max_size=30),
    st.integers(0, 29),
    st.integers(1, 3),
)
def test_an_absurd_jump_changes_no_other_bar(steps: list[int], at: int, length: int):
    rising = [10**6]
    for step in steps:
        rising.append(rising[-1] + step)
    at = 1 + at % (len(steps) - 1)
    jumped = [v + 10**15 if at <= n < at + length else v for n, v in enumerate(rising)]
    jumped += [rising[-1]] * (length + 1)  # the counter is itself again
    rising += [rising[-1]] * (length + 1)

    clean, spiked = bars_of(rising), bars_of(jumped)

    assert total(spiked["volume"]) == total(clean["volume"])
    assert spiked["counter_end"].to_list()[-1] == clean["counter_end"].to_list()[-1]
    untouched = [n for n in range(len(rising) - 1) if not at - 1 <= n <= at + length - 1]
    assert spiked[untouched]["volume"].equals(clean[untouched]["volume"])
