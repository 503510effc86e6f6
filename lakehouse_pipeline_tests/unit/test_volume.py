"""What the counter proves: exact deltas, resets, falls, and to whom each delta belongs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.decimals import exact_sum
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.quality import Flag, unconserved_volume
from lakehouse_pipeline.market.quotes import Kind
from lakehouse_pipeline.market.windows import DAY, TimeWindow
from lakehouse_pipeline_tests.scripted import START, Script, window

FAR = START + 2 * DAY
HOUR = window(0, 3600)


def counting(*values: float, first: float = 1000.0) -> pl.DataFrame:
    """The bars of a counter seen as *values*, ten seconds apart, after it was restored."""
    script = Script().session("s1", alive=(0, 3600))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=first, trade=-60)
    for n, value in enumerate(values):
        script.trade(11 + 10 * n, 1.0, value)
    return build_bars_1s(script.quotes, script.coverage, HOUR, FAR)


def test_a_difference_of_counters_is_the_decimal_difference():
    bars = counting(4837.89128, 4837.89177, first=4837.88792)

    assert bars["volume"].to_list() == [0.00336, 0.00049]
    assert 4837.89128 - 4837.88792 != 0.00336


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("999999.99999999", "1000000.00000001"),
        ("0.00000001", "0.00000003"),
        ("123456789012.1", "123456789012.3"),
        ("99999999999999", "99999999999999.9"),
    ],
)
def test_differences_are_exact_at_any_size(before: str, after: str):
    bars = counting(float(after), first=float(before))

    assert bars["volume"].item() == float(Decimal(after) - Decimal(before))


def test_a_fall_books_nothing_and_is_flagged():
    bars = counting(1010.0, 1020.0, 1030.0, 4.0, 1031.0)

    assert bars["volume"].to_list() == [10.0, 10.0, 10.0, 0.0, 1.0]
    assert [bool(f & Flag.COUNTER_FELL) for f in bars["flags"]] == [False] * 3 + [True, False]


def test_an_absurd_jump_that_is_taken_back_is_not_booked():
    bars = counting(1010.0, 1e15, 1011.0, 1012.0)

    assert bars["volume"].to_list() == [10.0, 0.0, 1.0, 1.0]
    assert bars["flags"][1] & Flag.COUNTER_FELL


def test_a_jump_taken_back_by_the_last_row_there_is_is_not_booked():
    assert counting(1010.0, 1e15, 1011.0)["volume"].to_list() == [10.0, 0.0, 1.0]


def test_a_jump_may_last_several_updates():
    bars = counting(1010.0, 1e15, 1e15, 1e15 + 1, 1011.0, 1012.0, 1013.0, 1014.0)

    assert bars["volume"].to_list() == [10.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def test_an_absurd_first_value_does_not_poison_the_day():
    bars = counting(*(1000.0 + n for n in range(1, 12)), first=1e15)

    assert bars["volume"].drop_nulls().sum() == 10.0


def test_a_short_fall_soon_after_a_start_is_not_taken_for_the_truth():
    bars = counting(0.0, 1001.0, 1002.0)

    assert bars["volume"].to_list() == [0.0, 1.0, 1.0]


def test_a_large_trade_is_no_spike():
    bars = counting(1010.0, 9010.0, 9011.0)

    assert bars["volume"].to_list() == [10.0, 8000.0, 1.0]


def test_two_nodes_a_little_apart_book_the_counter_once():
    bars = counting(100.0005, 100.0, 100.002, 100.0015, 100.003, 100.003, first=99.0)

    assert exact_total(bars) == Decimal("4.003") - 3


def exact_total(bars: pl.DataFrame) -> Decimal:
    return sum((Decimal(repr(v)) for v in bars["volume"]), start=Decimal(0))


def across_midnight(*, alive: tuple[float, float] = (-60, 120)) -> Script:
    midnight = datetime(2026, 1, 6, tzinfo=UTC)
    script = Script(start=midnight).session("s1", alive=alive)
    script.snapshot(-59.5, last_price=1.0, cumulative_volume=500.0, trade=-70)
    return script.trade(-9, 1.0, 500.5)


def test_a_new_day_counts_from_zero():
    script = across_midnight().trade(5, 1.0, 0.25).trade(7, 1.0, 0.75)
    span = TimeWindow(script.time(-60), script.time(120))

    bars = build_bars_1s(script.quotes, script.coverage, span, FAR)

    assert bars["volume"].to_list() == [0.5, 0.25, 0.5]
    assert bars["volume_basis"].to_list() == ["counter_delta", "counter_reset", "counter_delta"]
    assert bars["counter_start"].to_list() == [500.0, 0.0, 0.25]
    assert bars["flags"][1] & Flag.COUNTER_RESET


def test_the_last_trade_of_a_day_may_arrive_after_the_first_of_the_next():
    script = across_midnight().trade(1.2, 1.0, 0.25, trade=0)
    script.trade(1.4, 1.0, 501.0, trade=-1)
    span = TimeWindow(script.time(-60), script.time(120))

    bars = build_bars_1s(script.quotes, script.coverage, span, FAR)

    assert bars["volume"].to_list() == [0.5, 0.5, 0.25]


def test_yesterday_s_counter_under_today_s_time_is_taken_back():
    script = across_midnight().trade(1.2, 1.0, 500.5, trade=0)
    script.trade(2.2, 1.0, 0.25).trade(3.2, 1.0, 0.5)
    span = TimeWindow(script.time(0), script.time(120))

    bars = build_bars_1s(script.quotes, script.coverage, span, FAR)

    assert bars["volume"].to_list() == [0.0, 0.25, 0.25]


@pytest.mark.parametrize("trades", [1, 3, 5, 6])
def test_a_day_that_rolls_without_a_trade_takes_nothing_from_the_one_before(trades: int):
    script = across_midnight(alive=(-60, 3600))
    for n in range(trades):
        script.trade(-8 + n, 1.0, 501.0 + n)
    today = TimeWindow(script.time(-86400), script.time(0))
    before = build_bars_1s(script.quotes, script.coverage, today, FAR)
    for n in range(trades + 1):
        rolled = {"cumulative_volume": 0.0, "day_open_time": script.time(0)}
        script.update(0.5 + 600 * n, kind=Kind.RESTORE, **rolled)

    bars = build_bars_1s(script.quotes, script.coverage, today, FAR)

    assert_frame_equal(bars, before)
    assert exact_total(bars) == Decimal(trades)


def test_a_state_after_a_reset_that_nothing_dates_takes_nothing_back():
    script = across_midnight(alive=(-60, 3600)).trade(-8, 1.0, 501.0)
    for n in range(3):
        script.update(0.5 + 600 * n, kind=Kind.RESTORE, cumulative_volume=0.0)
    yesterday = TimeWindow(script.time(-60), script.time(0))

    bars = build_bars_1s(script.quotes, script.coverage, yesterday, FAR)

    assert bars["volume"].to_list() == [0.5, 0.5]


def test_what_was_missed_before_a_reset_inside_an_outage_is_not_known():
    script = across_midnight(alive=(-600, -60)).session("s2", alive=(60, 900))
    restored = {"cumulative_volume": 0.0, "day_open_time": script.time(0)}
    script.snapshot(60.2, "s2", last_price=1.0, trade=-30, **restored)
    days = (TimeWindow.of_day(script.time(at).date()) for at in (-1, 1))

    missed = [
        find_gaps(script.quotes, script.coverage, day, script.time(800))["missed_volume"].item()
        for day in days
    ]

    assert missed == [None, 0.0]


def test_a_day_first_seen_after_an_outage_gives_its_start_to_the_gap():
    script = across_midnight(alive=(-60, -5)).mark(Mark.ENDED, "s1", -5, reason=Ending.CLOSED.value)
    script.session("s2", alive=(20, 90))
    script.snapshot(20.5, "s2", last_price=1.0, cumulative_volume=3.0, trade=19)
    script.update(31, "s2", trade=30, cumulative_volume=3.5)
    today = TimeWindow(script.time(0), script.time(120))

    bars = build_bars_1s(script.quotes, script.coverage, today, FAR)
    gap = find_gaps(script.quotes, script.coverage, today, script.time(80)).row(0, named=True)

    assert bars["volume"].to_list() == [0.5]
    assert (gap["start"], gap["end"]) == (script.time(0), script.time(20.5))
    assert (gap["missed_volume"], gap["counter_before"], gap["counter_after"]) == (3.0, 0.0, 3.0)


def test_a_delta_over_dropped_updates_belongs_to_the_gap_and_is_flagged():
    script = Script().session("s1", alive=(0, 90))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.trade(11, 1.0, 11.0).mark(Mark.SHED, "s1", 12, 20).trade(21, 1.0, 15.0)

    bars = build_bars_1s(script.quotes, script.coverage, HOUR, FAR)
    gaps = find_gaps(script.quotes, script.coverage, HOUR, script.time(80))

    assert bars["volume"].to_list() == [1.0, 0.0]
    assert bars["flags"][1] & Flag.SPANS_GAP
    assert gaps["missed_volume"].to_list() == [4.0]
    assert unconserved_volume(bars, gaps).is_empty()


def test_with_a_short_look_back_an_unknown_start_stays_unknown():
    script = Script().session("s1", alive=(-50_000, 90))
    script.mark(Mark.SUBSCRIBED, "s1", -40_000, symbol="BINANCE:BTCUSDT")
    script.trade(11, 1.0, 700.0).trade(13, 1.0, 701.0)

    bars = build_bars_1s(script.quotes, script.coverage, HOUR, FAR, since=script.time(-60))

    assert bars["volume"].to_list() == [None, 1.0]


def test_sums_are_exact_and_null_only_if_nothing_is_known():
    frame = pl.DataFrame(
        {"v": [0.1] * 10 + [None], "n": [None] * 11}, schema_overrides={"n": pl.Float64}
    )

    assert frame.select(exact_sum("v"), exact_sum("n")).row(0) == (1.0, None)


def test_a_counter_that_passes_a_power_of_ten_later_changes_no_bar():
    values = [9_999_990.12345678, 9_999_991.12345679, 9_999_992.98765432]
    before = counting(*values[1:], first=values[0])

    bars = counting(*values[1:], 10_000_012.98765432, 10_000_013.5, first=values[0])

    assert before["volume"].to_list() == [1.00000001, 1.86419753]
    assert bars["volume"].to_list() == [1.00000001, 1.86419753, 20.0, 0.5123457]


def test_sentinels_are_no_counter():
    assert counting(1001.0, 1e100, 1002.0)["volume"].to_list() == [1.0, 0.0, 1.0]


def test_order_of_receipt_counts_not_order_of_trade():
    script = Script().session("s1", alive=(0, 90))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.trade(12.0, 1.0, 11.0, trade=11).trade(12.5, 1.0, 11.5, trade=10)

    bars = build_bars_1s(script.quotes, script.coverage, HOUR, FAR)

    assert bars["open_time"].to_list() == [script.time(10), script.time(11)]
    assert bars["volume"].to_list() == [0.5, 1.0]


def test_updates_of_one_message_keep_their_order():
    script = Script().session("s1", alive=(0, 90))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.snapshot(20.0, last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.trade(20.0, 1.0, 12.0, trade=18).trade(20.0, 1.0, 13.0, trade=19)

    bars = build_bars_1s(script.quotes, script.coverage, HOUR, FAR)

    assert bars["volume"].to_list() == [2.0, 1.0]
    assert timedelta(seconds=1) == bars["open_time"][1] - bars["open_time"][0]
