"""A short reading that says it suffices gives the bars of the long one, whatever the rows are."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
from hypothesis import event, given
from hypothesis import strategies as st

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.lookback import unsettled
from lakehouse_pipeline.market.volume import CounterKind
from lakehouse_pipeline.market.windows import DAY, SECOND, TimeWindow, floor
from lakehouse_pipeline_tests.generated import Recording, damage, damaged, recordings
from lakehouse_pipeline_tests.scripted import SYMBOL, Script

KINDS = [{}, {SYMBOL: CounterKind.ROLLING}]


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
    before = TimeWindow(floor(start, DAY), start)
    stored = build_bars_1s(then, coverage, before, watermark, kinds=kinds)
    short = quotes.filter((happened >= since) | (received >= since))
    came = quotes.join(then, on=["writer_id", "sequence"], how="anti")["received_at"].min()

    left = unsettled(
        short,
        stored.filter(pl.col("open_time") >= since),
        coverage,
        window,
        since,
        came=came or watermark,
        kinds=kinds,
    )

    whole = build_bars_1s(quotes, coverage, window, watermark, kinds=kinds)
    mine = build_bars_1s(short, coverage, window, watermark, kinds=kinds)
    now = build_bars_1s(quotes, coverage, before, watermark, kinds=kinds)
    event("unsettled" if left else "settled, no bars" if whole.is_empty() else "settled")
    event("stored bars changed" if not now.equals(stored) else "stored bars stand")
    here = ~pl.col("symbol").is_in(left)
    assert mine.filter(here).equals(whole.filter(here))
    assert stored.filter(here).equals(now.filter(here))


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

    assert unsettled(short, bars, coverage, window, since, came=script.time(150)) == [
        "BINANCE:QUIET"
    ]
