"""One line per symbol and instant, where two sessions overlap."""

from __future__ import annotations

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.windows import DAY
from lakehouse_pipeline_tests.scripted import START, Script, window


def handed_over() -> Script:
    """Two sessions that both saw the trades of seconds 20 to 40."""
    script = Script().session("old", alive=(0, 41), ended=Ending.HANDED_OVER)
    script.session("new", alive=(18, 90))
    script.snapshot(0.5, "old", last_price=1.0, cumulative_volume=100.0, trade=-9)
    script.trade(11, 1.1, 101.0, session="old")
    script.snapshot(18.5, "new", last_price=1.1, cumulative_volume=101.0, trade=10)
    script.trade(21.0, 1.2, 102.0, session="old")
    script.trade(21.2, 1.2, 102.0, session="new")
    script.trade(31.2, 1.3, 103.0, session="new")
    script.trade(31.3, 1.3, 103.0, session="old")
    script.trade(40.0, 1.35, 103.5, session="old")
    script.trade(41.5, 1.4, 104.0, session="new")
    return script.trade(51.0, 1.5, 105.0, session="new")


def test_each_trade_is_taken_once():
    script = handed_over()

    bars = build_bars_1s(script.quotes, script.coverage, window(0, 60), START + DAY)

    assert bars["open_time"].to_list() == [script.time(s) for s in (10, 20, 30, 40, 50)]
    assert bars["volume"].to_list() == [1.0, 1.0, 1.0, 1.0, 1.0]
    assert bars["price_updates"].to_list() == [1, 1, 1, 1, 1]


def test_the_line_changes_where_both_counters_agreed_last():
    script = handed_over()

    line = select_line(script.quotes, script.coverage).sort("received_at")

    assert line["session_id"].to_list() == ["old"] * 4 + ["new"] * 3
    restored = line.filter(session_id="new").row(0, named=True)
    assert restored["kind"] == "restore"
    assert restored["cumulative_volume"] == 103.0


def test_counters_that_never_agree_change_at_the_older_one_s_end_and_book_nothing_twice():
    script = Script().session("old", alive=(0, 31), ended=Ending.HANDED_OVER)
    script.session("new", alive=(18, 90))
    script.snapshot(0.5, "old", last_price=1.0, cumulative_volume=100.0, trade=-9)
    script.snapshot(18.5, "new", last_price=1.0, cumulative_volume=100.5, trade=-9)
    script.trade(21.0, 1.2, 102.0, session="old").trade(21.2, 1.2, 102.5, session="new")
    script.trade(31.0, 1.3, 103.0, session="old").trade(41.0, 1.4, 104.5, session="new")

    bars = build_bars_1s(script.quotes, script.coverage, window(0, 60), START + DAY)

    # The newer counter had not yet shown the trade of second 30: below 103 it adds nothing.
    assert bars["volume"].to_list() == [2.0, 1.0, 1.5]


def test_a_session_within_an_older_one_is_left_out():
    script = Script().session("old", alive=(0, 90)).session("short", alive=(10, 30))
    script.snapshot(0.5, "old", last_price=1.0, cumulative_volume=100.0, trade=-9)
    script.snapshot(10.5, "short", last_price=1.0, cumulative_volume=100.0, trade=-9)
    script.trade(21.0, 1.2, 101.0, session="old").trade(21.2, 1.2, 101.0, session="short")
    script.trade(41.0, 1.4, 102.0, session="old")

    line = select_line(script.quotes, script.coverage)

    assert set(line["session_id"]) == {"old"}


def test_without_an_overlap_rows_are_passed_through():
    script = Script().session("a", alive=(0, 20)).session("b", alive=(30, 60))
    script.snapshot(0.5, "a", last_price=1.0, cumulative_volume=1.0, trade=-9)
    script.trade(11, 1.0, 2.0, session="a")
    script.snapshot(30.5, "b", last_price=1.0, cumulative_volume=3.0, trade=29)

    quotes = select_line(script.quotes, script.coverage)

    assert select_line(quotes, script.coverage) is quotes


def test_choosing_twice_changes_nothing():
    script = handed_over()
    once = select_line(script.quotes, script.coverage)

    assert select_line(once, script.coverage).equals(once)
