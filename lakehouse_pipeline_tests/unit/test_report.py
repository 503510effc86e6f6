"""What the demo says while it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline.stack.report import bar_lines, end_line, waiting_line

SYMBOL = "BINANCE:BTCUSDT"
START = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_a_bar_that_is_official_is_marked_as_such():
    sources = ["official", "mixed", "stream"]
    prices = dict.fromkeys(("open", "high", "low", "close"), 91_564.69)
    bars = pl.DataFrame(
        {
            "open_time": [START + n * MINUTE for n in range(3)],
            **prices,
            "volume": [4.125, None, 3.0],
            "rsi": [None, 50.0, 51.0],
            "macd": [None, None, 1.5],
            "source": sources,
        }
    )

    _, official, mixed, streamed = bar_lines(SYMBOL, bars)

    assert "official" in official
    assert "official" in mixed
    assert "unknown" in mixed
    assert streamed.endswith("51.0   1.50")


def test_what_is_waited_for_is_said_with_a_sign_of_life():
    said = waiting_line(SYMBOL, [None], now=START)

    assert said.startswith("12:00:00 0 quotes")
    assert "first 1-minute bar" in said


def test_the_end_says_what_was_made_and_how_to_read_it():
    said = end_line({"1-minute bars": 9}, Path(".lakehouse/demo"), SYMBOL)

    assert "9 1-minute bars" in said
    assert f"LAKEHOUSE_STATE_DIR=.lakehouse/demo .venv/bin/lakehouse bars {SYMBOL}" in said
