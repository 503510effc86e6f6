"""Statements find the rows that break them, and nothing else."""

from __future__ import annotations

import polars as pl
import pytest

from lakehouse_pipeline.market import quality
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import Mark, paused
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.quality import WHY, Flag
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.schemas import BARS
from lakehouse_pipeline.market.windows import DAY, MINUTE, SECOND
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script, window

HOUR = window(0, 3600)
FAR = START + DAY


@pytest.fixture(scope="module")
def script() -> Script:
    script = Script().session("s1", alive=(0, 3600))
    script.snapshot(0.5, last_price=99.0, cumulative_volume=1000.0, trade=-60)
    for second in range(10, 130, 5):
        script.trade(second + 1.25, 100.0 + second % 7, 1000.0 + second / 8, trade=second)
    return script


@pytest.fixture(scope="module")
def bars(script: Script) -> pl.DataFrame:
    return build_bars_1s(script.quotes, script.coverage, HOUR, FAR)


def test_bars_as_built_break_nothing(script: Script, bars: pl.DataFrame):
    gaps = find_gaps(script.quotes, script.coverage, HOUR, FAR)

    assert quality.ohlc_violations(bars).is_empty()
    assert quality.order_violations(bars).is_empty()
    assert quality.window_violations(bars, HOUR, SECOND, FAR).is_empty()
    assert quality.disagreements(bars, bars).is_empty()
    assert quality.unconserved_volume(bars, gaps).is_empty()
    assert bars.height == 24


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"low": 200.0}, "low above open or close"),
        ({"high": 50.0}, "high below open or close"),
        ({"close": None}, "price missing"),
        ({"open": float("nan")}, "price missing"),
        ({"volume": -1.0}, "negative volume"),
        ({"volume": None}, "volume without a basis"),
        ({"quote_updates": -1}, "negative count"),
        ({"price_updates": 0}, "no update"),
    ],
)
def test_an_impossible_bar_is_found(bars: pl.DataFrame, change: dict[str, object], why: str):
    third = pl.int_range(pl.len()) == 3
    broken = bars.with_columns(
        pl.when(third).then(pl.lit(value, BARS[name])).otherwise(name).alias(name)
        for name, value in change.items()
    )

    assert quality.ohlc_violations(broken)[WHY].to_list() == [why]


def test_repeated_and_misplaced_bars_are_found(bars: pl.DataFrame):
    repeated = pl.concat([bars, bars[[5]]])

    assert quality.order_violations(repeated)[WHY].to_list() == [
        "repeated",
        "repeated, out of order",
    ]
    assert quality.order_violations(bars.reverse()).height == bars.height - 1


def test_bars_outside_their_partition_or_not_closed_are_found(bars: pl.DataFrame):
    short = window(15, 60)

    found = quality.window_violations(bars, short, SECOND, START + 50 * SECOND)

    reasons = found[WHY].to_list()
    assert reasons.count("outside the partition") == 1
    assert reasons.count("outside the partition, not closed yet") == bars.height - 10
    assert reasons.count("not closed yet") == 2
    assert quality.window_violations(bars, HOUR, MINUTE, FAR).height == 22


def test_a_rebuild_that_differs_says_in_which_column(bars: pl.DataFrame):
    stored = bars.with_columns(
        pl.when(pl.int_range(pl.len()) == 3).then(1.0).otherwise("volume").alias("volume")
    ).slice(1)

    found = quality.disagreements(stored, bars.head(-1))

    assert found[WHY].to_list() == ["only rebuilt", "volume", "only stored"]


def test_a_rollup_that_lost_a_second_is_found(bars: pl.DataFrame):
    found = quality.disagreements(roll_up(bars.slice(1), MINUTE), roll_up(bars, MINUTE))

    assert found.height == 1
    assert "observed_seconds" in found[WHY].item()


def test_volume_that_went_missing_is_found(script: Script, bars: pl.DataFrame):
    gaps = find_gaps(script.quotes, script.coverage, HOUR, FAR)

    found = quality.unconserved_volume(bars.with_columns(volume=pl.col("volume") * 0.5), gaps)

    assert found.height == 1
    assert found["residual"].item() == found["booked"].item()


def test_what_was_traded_while_nobody_wanted_the_symbol_is_nobody_s_loss():
    """A symbol taken off exchanges.yaml and put back the same day: its counter went on."""
    script = Script().session("s1", alive=(0, 3700))
    script.snapshot(0.5, last_price=99.0, cumulative_volume=100.0, trade=-60)
    script.trade(20.5, 99.0, 110.0)
    script.mark(Mark.UNSUBSCRIBED, "s1", 30, symbol=SYMBOL)
    script.snapshot(60.25, last_price=99.5, cumulative_volume=150.0, trade=55)
    script.trade(70.5, 99.0, 161.0)
    bars = build_bars_1s(script.quotes, script.coverage, HOUR, FAR)
    gaps = find_gaps(script.quotes, script.coverage, HOUR, FAR)

    pauses = paused(script.coverage)
    lost = bars.with_columns(volume=pl.col("volume") - 1)

    assert bars["volume"].to_list() == [10.0, 11.0]
    assert gaps.is_empty()
    assert quality.unconserved_volume(bars, gaps, pauses).is_empty()
    assert quality.unconserved_volume(lost, gaps, pauses)["residual"].to_list() == [1.0, 1.0]
    assert quality.unconserved_volume(bars, gaps)["residual"].to_list() == [40.0]


def test_flags_are_distinct_bits():
    assert [flag.value for flag in Flag] == [1 << n for n in range(len(Flag))]
