"""What a bar is: its edges, its prices, its volume, and what it says about itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.market.bars import State, build_bars, build_bars_1s, with_coverage
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import Kind
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.schemas import BARS, COVERAGE, QUOTES
from lakehouse_pipeline.market.windows import DAY, MINUTE, SECOND, TimeWindow
from lakehouse_pipeline_tests.scripted import START, Script, slow_bars, window

FAR = START + DAY
MINUTE_OF = window(0, 60)


def recorded(*, until: float = 120) -> Script:
    """One symbol seen from the first second on, last traded at 99 a minute before."""
    script = Script().session("s1", alive=(0, until))
    return script.snapshot(0.5, last_price=99.0, cumulative_volume=1000.0, trade=-60)


def seconds_of(script: Script, within: TimeWindow = MINUTE_OF) -> pl.DataFrame:
    return build_bars_1s(script.quotes, script.coverage, within, FAR)


def test_prices_of_a_second_are_taken_in_the_order_they_were_received():
    script = recorded()
    script.trade(11.2, 100.0, 1001.0, trade=10)
    script.trade(11.4, 103.0, 1002.0, trade=10)
    script.trade(11.6, 98.0, 1002.5, trade=10)
    script.trade(11.8, 101.0, 1003.0, trade=10)

    bar = seconds_of(script).row(0, named=True)

    assert bar["open_time"] == script.time(10)
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (100.0, 103.0, 98.0, 101.0)
    assert (bar["volume"], bar["volume_basis"]) == (3.0, "counter_delta")
    assert (bar["counter_start"], bar["counter_end"]) == (1000.0, 1003.0)
    assert bar["price_updates"] == 4


def test_a_second_belongs_to_the_interval_it_opens():
    script = recorded()
    script.trade(10.5, 100.0, 1001.0, trade=9)
    script.trade(11.5, 101.0, 1002.0, trade=10)

    bars = build_bars(script.quotes, script.coverage, MINUTE_OF, FAR, step=10 * SECOND)

    assert bars["open_time"].to_list() == [script.time(0), script.time(10)]
    assert bars["close"].to_list() == [100.0, 101.0]


def test_a_second_without_an_update_has_no_row():
    script = recorded().trade(11, 100.0, 1001.0).trade(14, 100.5, 1002.0)

    assert seconds_of(script)["open_time"].to_list() == [script.time(10), script.time(13)]


def test_a_restored_state_is_no_price_but_the_previous_close():
    script = recorded().trade(11, 100.0, 1001.0)

    bars = seconds_of(script)

    assert bars.height == 1
    assert bars["prev_close"].item() == 99.0
    assert bars["low"].item() == 100.0


def test_previous_close_is_the_last_price_however_old():
    script = recorded().trade(11, 100.0, 1001.0).trade(40, 101.0, 1002.0)

    assert seconds_of(script)["prev_close"].to_list() == [99.0, 100.0]


def test_a_trade_at_the_same_price_touches_it():
    script = recorded().trade(11, 100.0, 1001.0)
    script.update(15.2, trade=14, cumulative_volume=1002.5)
    script.update(17.2, trade=16)

    bars = seconds_of(script)

    assert bars["close"].to_list() == [100.0, 100.0, 100.0]
    assert bars["volume"].to_list() == [1.0, 1.5, 0.0]
    assert bars.select("price_updates", "volume_updates", "time_updates").rows() == [
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
    ]


def test_a_trade_after_a_restored_state_is_newer_though_its_second_began_before():
    script = recorded().update(10.5, kind=Kind.RESTORE, last_price=100.0)
    script.trade(10.9, 101.0, 1001.0, trade=10).trade(11.9, 102.0, 1002.0, trade=11)

    bars = seconds_of(script)

    assert bars["prev_close"].to_list()[1:] == [101.0]


def test_bid_and_ask_are_those_received_last_in_the_second():
    script = recorded().update(10.3, bid=99.5, ask=101.0)
    script.trade(10.9, 102.0, 1001.0, trade=10, bid=101.0, ask=103.0)

    assert seconds_of(script).select("bid", "ask").row(0) == (101.0, 103.0)


def test_bid_and_ask_alone_make_no_bar_and_count_in_those_there_are():
    script = recorded().update(10.7, bid=99.5, ask=100.5)
    script.trade(11.2, 100.0, 1001.0, trade=10)
    script.update(20.0, bid=99.0, ask=100.0)

    bars = seconds_of(script)

    assert bars["quote_updates"].to_list() == [1]
    assert bars.select("bid", "ask").row(0) == (99.5, 100.5)


def test_spread_is_weighted_by_the_time_each_quote_stood():
    script = recorded().update(5, bid=99.0, ask=100.0)
    script.update(10.25, bid=99.0, ask=101.0)
    script.update(10.75, bid=99.0, ask=103.0)
    script.trade(11.2, 100.0, 1001.0, trade=10)

    assert seconds_of(script)["spread"].item() == pytest.approx(0.25 * 1 + 0.5 * 2 + 0.25 * 4)


def test_spread_is_unknown_before_the_first_quote():
    script = recorded().trade(11.2, 100.0, 1001.0, trade=10).update(20, bid=99.0, ask=100.0)

    assert seconds_of(script)["spread"].item() is None


def test_only_bars_that_the_watermark_has_closed_are_built():
    script = recorded().trade(11, 100.0, 1001.0).trade(12, 101.0, 1002.0)

    bars = build_bars_1s(script.quotes, script.coverage, MINUTE_OF, script.time(11.5))

    assert bars["open_time"].to_list() == [script.time(10)]


def test_a_bar_is_final_when_its_day_is_over():
    script = recorded().trade(11, 100.0, 1001.0)
    midnight = TimeWindow.of_day(START.date()).end

    closed = build_bars_1s(script.quotes, script.coverage, MINUTE_OF, midnight - SECOND)
    final = build_bars_1s(script.quotes, script.coverage, MINUTE_OF, midnight)

    assert (closed["state"].item(), final["state"].item()) == (State.CLOSED, State.FINAL)


def test_an_update_after_close_and_lateness_counts_as_late_and_is_booked():
    script = recorded().trade(11, 100.0, 1001.0).trade(16.5, 101.0, 1002.0, trade=15)
    script.trade(17.0, 100.5, 1002.25, trade=10)

    bars = seconds_of(script)

    assert bars["late_updates"].to_list() == [1, 0]
    assert bars["close"].to_list() == [100.5, 101.0]
    assert bars["volume"].to_list() == [1.25, 1.0]
    assert bars["flags"][0] & Flag.LATE


def test_a_second_only_partly_seen_says_so():
    script = Script().session("s1", alive=(0, 60))
    script.snapshot(10.25, last_price=99.0, cumulative_volume=5.0, trade=1)
    script.trade(10.9, 100.0, 6.0, trade=10).trade(12, 100.0, 7.0)

    bars = seconds_of(script)

    assert bars["covered_seconds"].to_list() == [0.75, 1.0]
    assert [bool(f & Flag.PARTIAL) for f in bars["flags"]] == [True, False]


def test_a_delta_across_an_outage_belongs_to_the_gap_not_to_the_next_bar():
    script = recorded(until=20).trade(11, 100.0, 1001.0)
    script.mark(Mark.ENDED, "s1", 20, reason=Ending.CLOSED.value).session("s2", alive=(40, 90))
    script.snapshot(40.5, "s2", last_price=105.0, cumulative_volume=1500.0, trade=39)
    script.update(42, "s2", trade=41, last_price=106.0, cumulative_volume=1500.5)

    bars = seconds_of(script)

    assert bars["volume"].to_list() == [1.0, 0.5]
    assert bars["prev_close"].to_list() == [99.0, 105.0]


def test_what_was_traded_before_the_first_observation_is_unknown_not_zero():
    script = Script().session("s1", alive=(0, 60)).snapshot(0.5, last_price=99.0, trade=-9)
    script.update(5, trade=4, last_price=100.0)
    script.trade(11, 100.0, 1001.0).trade(13, 100.0, 1001.5)

    bars = seconds_of(script)

    assert bars["volume"].to_list() == [None, None, 0.5]
    assert bars["volume_basis"].to_list() == ["unknown", "unknown", "counter_delta"]
    assert bars["flags"][0] & Flag.VOLUME_UNKNOWN


def test_a_clock_far_off_and_a_delayed_feed_are_flagged():
    script = recorded().trade(11, 100.0, 1001.0)
    script.trade(40, 100.0, 1001.0, trade=20, update_mode="delayed_streaming_900")

    flags = seconds_of(script)["flags"].to_list()

    assert flags[0] == 0
    assert flags[1] & Flag.CLOCK_SUSPECT
    assert flags[1] & Flag.DELAYED_FEED


def test_a_crossed_quote_is_flagged():
    script = recorded().trade(11, 100.0, 1001.0, bid=101.0, ask=100.0)

    assert seconds_of(script)["flags"].item() & Flag.CROSSED_QUOTE


def test_no_quotes_make_no_bars():
    bars = build_bars_1s(QUOTES.to_frame(), COVERAGE.to_frame(), MINUTE_OF, FAR)

    assert bars.schema == BARS
    assert bars.is_empty()
    assert roll_up(bars, MINUTE).schema == BARS


def test_quotes_alone_make_no_bars():
    script = recorded().update(3, bid=1.0, ask=2.0)

    assert seconds_of(script).is_empty()


def test_a_minute_knows_how_much_of_it_was_seen():
    script = recorded(until=35).trade(11, 100.0, 1001.0)

    minute = with_coverage(roll_up(seconds_of(script), MINUTE), script.coverage, MINUTE)

    assert minute["covered_seconds"].item() == 29.5  # from 0.5 to 35 less the lateness
    assert minute["observed_seconds"].item() == 1
    assert minute["flags"].item() & Flag.PARTIAL


def test_rolled_up_volume_is_the_decimal_sum():
    bars = recorded()
    for second in range(10):
        bars.trade(11 + second, 100.0, round(1000.0 + 0.1 * (second + 1), 1))

    assert roll_up(seconds_of(bars), MINUTE)["volume"].item() == 1.0


@pytest.mark.parametrize(
    "name",
    ["trades_BINANCE_ETHUSDT_20240808-09.parquet", "trades_COINBASE_BTCUSD_20230905.parquet"],
)
def test_bars_of_real_trades_are_what_plain_python_makes_of_them(shared_data: Path, name: str):
    script, span = conflated(pl.read_parquet(shared_data / name))

    for step in (SECOND, MINUTE):
        bars = build_bars(script.quotes, script.coverage, span, span.end, step=step)
        slow = slow_bars(script.quotes, script.coverage, span, span.end, step)

        columns = ["open_time", "open", "high", "low", "close", "prev_close", "volume"]
        assert bars.select(columns).to_dicts() == [{c: bar[c] for c in columns} for bar in slow]
        assert bars.height > 10


def test_minutes_of_real_trades_are_the_market_s_own(shared_data: Path):
    """Volume to the last digit; high and low within what one snapshot a second can see."""
    trades = pl.read_parquet(shared_data / "trades_BINANCE_ETHUSDT_20240808-09.parquet")
    script, span = conflated(trades)

    bars = build_bars(script.quotes, script.coverage, span, span.end, step=MINUTE)

    truth = (
        trades.with_columns(minute=pl.from_epoch("ts_us", "us").dt.replace_time_zone("UTC"))
        .group_by(pl.col("minute").dt.truncate("1m"), maintain_order=True)
        .agg(highest=pl.col("price").max(), lots=(pl.col("size") * 1e4).round().sum())
    )
    both = bars.join(truth, left_on="open_time", right_on="minute")
    assert both.height == bars.height
    inner = both.slice(1, both.height - 2)  # whole minutes
    assert inner["volume"].to_list() == [lots / 1e4 for lots in inner["lots"]]
    assert (both["high"] <= both["highest"]).all()


def conflated(trades: pl.DataFrame) -> tuple[Script, TimeWindow]:
    """Return the feed's view of real trades: one merged update a second, and the whole minutes."""
    seconds = (
        trades.sort("ts_us", maintain_order=True)
        .group_by(second=pl.col("ts_us") // 1_000_000, maintain_order=True)
        .agg(pl.col("price").last(), lots=(pl.col("size") * 1e8).round().cast(pl.Int64).sum())
    )
    first = seconds["second"][0]
    start = START.fromtimestamp(first - first % 60, tz=START.tzinfo)
    script = Script(start=start)
    last = seconds["second"][-1] - first + first % 60 + 10
    script.session("s1", alive=(-1, last), pieces=7)
    script.snapshot(-0.5, last_price=seconds["price"][0], cumulative_volume=0.0, trade=-30)
    lots, day = 0, START.fromtimestamp(first, tz=START.tzinfo).date()
    for second, price, added in seconds.iter_rows():
        at = START.fromtimestamp(second, tz=START.tzinfo)
        if at.date() != day:
            lots, day = 0, at.date()
        lots += added
        offset = (at - start).total_seconds()
        script.trade(offset + 1.1, price, lots / 1e8, trade=offset)
    return script, TimeWindow(start, start + timedelta(minutes=last // 60))
