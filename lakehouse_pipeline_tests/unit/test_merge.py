"""Which bar a minute gets: streamed, official, or both."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from lakehouse_pipeline.market.bars import build_bars
from lakehouse_pipeline.market.merge import merge
from lakehouse_pipeline.market.quality import Flag, ohlc_violations
from lakehouse_pipeline.market.schemas import HISTORY, MINUTE_BARS
from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script, window

SPAN = window(0, 600)
WATERMARK = SPAN.end


def history(*minutes: int, volume: float | None = 7.0, fetched: int = 0) -> pl.DataFrame:
    bars = [
        ("BINANCE", SYMBOL, START + n * MINUTE, 100.0, 110.0, 90.0, 105.0, volume) for n in minutes
    ]
    stamped = [(*bar, START + fetched * MINUTE) for bar in bars]
    return pl.DataFrame(stamped, schema=HISTORY, orient="row")


@pytest.fixture
def script() -> Script:
    """Seen from second 30 to 205: minute 0 partly, 1 and 2 wholly (2 is quiet), 3 partly."""
    script = Script().session("s1", alive=(30, 205))
    script.snapshot(30, last_price=100.0, cumulative_volume=50.0, trade=20)
    script.trade(40, 101.0, 51.0).trade(70, 102.0, 53.0).trade(90, 103.0, 54.0)
    return script.trade(190, 104.0, 55.0)


def streamed(script: Script) -> pl.DataFrame:
    return build_bars(script.quotes, script.coverage, SPAN, WATERMARK, step=MINUTE)


def merged(script: Script, official: pl.DataFrame, watermark: datetime = WATERMARK) -> dict:
    bars = merge(streamed(script), official, script.coverage, watermark)
    assert bars.schema == MINUTE_BARS
    assert ohlc_violations(bars).is_empty()
    return {(row["open_time"] - START) // MINUTE: row for row in bars.to_dicts()}


def values(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in ("open", "high", "low", "close", "volume"))


def test_without_history_the_bars_are_the_streamed_ones(script: Script):
    bars = merge(streamed(script), HISTORY.to_frame(), script.coverage, WATERMARK)

    assert bars.drop("price_deviation", "volume_deviation").equals(streamed(script))
    assert bars["price_deviation"].null_count() == bars.height


def test_a_minute_wholly_seen_stays_and_says_how_far_it_deviates(script: Script):
    bar = merged(script, history(1))[1]

    assert (bar["source"], bar["volume_basis"]) == ("stream", "counter_delta")
    assert values(bar) == (102.0, 103.0, 102.0, 103.0, 3.0)
    assert (bar["price_deviation"], bar["volume_deviation"]) == (12.0, -4.0)
    assert not bar["flags"] & Flag.FILLED


def test_a_minute_partly_seen_takes_official_values_and_keeps_our_counts(script: Script):
    bars = merged(script, history(0, 3))

    for minute in (0, 3):
        assert bars[minute]["source"] == "mixed"
        assert bars[minute]["volume_basis"] == "official"
        assert values(bars[minute]) == (100.0, 110.0, 90.0, 105.0, 7.0)
        assert bars[minute]["price_updates"] == 1
        assert bars[minute]["flags"] & Flag.FILLED
        assert bars[minute]["flags"] & Flag.PARTIAL
    assert bars[0]["price_deviation"] == 11.0
    assert bars[0]["volume_deviation"] == -6.0
    assert (bars[0]["counter_start"], bars[0]["counter_end"]) == (50.0, 51.0)


def test_a_minute_never_seen_is_the_official_one(script: Script):
    bar = merged(script, history(5))[5]

    assert (bar["source"], bar["covered_seconds"], bar["price_updates"]) == ("official", 0.0, 0)
    assert values(bar) == (100.0, 110.0, 90.0, 105.0, 7.0)
    assert (bar["prev_close"], bar["bid"], bar["spread"]) == (None, None, None)
    assert bar["price_deviation"] is None
    assert bar["state"] == "closed"


def test_a_quiet_minute_that_was_seen_stays_empty(script: Script):
    assert 2 not in merged(script, history(2))


def test_history_that_is_not_closed_yet_is_left_for_later(script: Script):
    assert 5 not in merged(script, history(5), START + 5 * MINUTE)


def test_official_bars_without_a_volume_leave_it_unknown(script: Script):
    bar = merged(script, history(0, volume=None))[0]

    assert (bar["volume"], bar["volume_basis"]) == (None, "unknown")
    assert bar["flags"] & Flag.VOLUME_UNKNOWN


def test_of_two_official_bars_the_later_counts(script: Script):
    both = pl.concat([history(5, volume=9.0, fetched=9), history(5, fetched=8)])

    assert merged(script, both)[5]["volume"] == 9.0
