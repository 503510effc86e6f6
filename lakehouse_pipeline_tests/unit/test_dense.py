"""The dense view: every interval, and why it was filled."""

from __future__ import annotations

import polars as pl

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.dense import dense, dense_over_gaps
from lakehouse_pipeline.market.gaps import Cause, find_gaps
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.schemas import BARS
from lakehouse_pipeline.market.windows import DAY, SECOND
from lakehouse_pipeline_tests.scripted import START, Script, window

SPAN = window(5, 40)


def parts() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars at 10, 13 and 33; a gap from 15 to 30.5 during which the price went from 101 to 105."""
    script = Script().session("a", alive=(0, 20)).session("b", alive=(29, 90))
    script.snapshot(0.5, "a", last_price=99.0, cumulative_volume=10.0, trade=-9)
    script.trade(11, 100.0, 11.0, session="a").trade(14, 101.0, 12.0, session="a")
    script.snapshot(30.5, "b", last_price=105.0, cumulative_volume=20.0, trade=29)
    script.trade(34, 106.0, 21.0, session="b")
    bars = build_bars_1s(script.quotes, script.coverage, SPAN, START + DAY)
    return bars, find_gaps(script.quotes, script.coverage, SPAN, script.time(80))


def at(view: pl.DataFrame, second: int) -> dict[str, object]:
    return view.row(second - 5, named=True)


def test_every_interval_has_one_row_and_bars_are_untouched():
    bars, gaps = parts()

    view = dense(bars, gaps, SPAN, SECOND)

    assert view.height == 35
    assert view.columns == [*BARS.names(), "fill_kind"]
    kept = view.filter(pl.col("fill_kind").is_null()).drop("fill_kind")
    assert kept.equals(bars)


def test_a_quiet_second_repeats_the_close_before_it_and_says_so():
    view = dense(*parts(), SPAN, SECOND)

    quiet = at(view, 12)

    assert quiet["fill_kind"] == "quiet"
    assert (quiet["open"], quiet["close"], quiet["volume"]) == (100.0, 100.0, 0.0)
    assert quiet["flags"] == Flag.CARRIED


def test_before_the_first_bar_the_price_known_then_is_carried():
    assert at(dense(*parts(), SPAN, SECOND), 6)["close"] == 99.0


def test_a_gap_is_not_carried():
    view = dense(*parts(), SPAN, SECOND)

    blind = at(view, 20)

    assert blind["fill_kind"] == "gap"
    assert (blind["close"], blind["volume"]) == (None, None)
    assert at(view, 30)["fill_kind"] == "gap"


def test_after_a_gap_the_restored_price_is_carried_not_the_one_before_it():
    assert at(dense(*parts(), SPAN, SECOND), 32)["close"] == 105.0


def test_a_gap_is_carried_on_request_without_a_volume():
    view = dense_over_gaps(*parts(), SPAN, SECOND)

    assert at(view, 20)["close"] == 101.0
    assert at(view, 20)["volume"] is None
    assert at(view, 20)["fill_kind"] == "gap"


def test_what_nobody_wanted_is_no_quiet_market():
    bars, gaps = parts()
    paused = gaps.with_columns(cause=pl.lit(Cause.UNSUBSCRIBED.value))

    assert at(dense(bars, paused, SPAN, SECOND), 20)["fill_kind"] == "gap"


def test_a_halted_venue_is_quiet_not_a_gap():
    bars, gaps = parts()
    halted = gaps.with_columns(cause=pl.lit(Cause.VENUE_HALT.value))

    assert at(dense(bars, halted, SPAN, SECOND), 20)["fill_kind"] == "quiet"


def test_where_no_price_was_ever_known_there_is_none():
    bars, gaps = parts()
    unknown = bars.with_columns(prev_close=pl.lit(None, pl.Float64))

    first = at(dense(unknown, gaps, SPAN, SECOND), 6)

    assert (first["fill_kind"], first["close"]) == ("quiet", None)
