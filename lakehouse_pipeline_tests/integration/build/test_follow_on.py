"""Ticks of a busy exchange read minutes, not the day, and give the rows of the whole day."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build.bars import build_1s, current_watermark
from lakehouse_pipeline.build.tick import tick_1s
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import MINUTE, SECOND, TimeWindow
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.benchmarks import exchange_day

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
SPAN = TimeWindow(MIDNIGHT, MIDNIGHT + 24 * MINUTE)
BARS = "market.bars_1s"


def land(lake: Lakehouse, quotes: pl.DataFrame, marks: pl.DataFrame, window: TimeWindow) -> None:
    inside = pl.col("received_at").is_between(window.start, window.end, closed="left")
    lake.append("raw.quotes", quotes.filter(inside))
    inside = pl.col("start").is_between(window.start, window.end, closed="left")
    lake.append("raw.coverage", marks.filter(inside))


def tick(lake: Lakehouse) -> None:
    seen = current_watermark(lake, exchange_day.EXCHANGE)
    assert seen is not None
    tick_1s(lake, exchange_day.EXCHANGE, watermark=seen)


def test_ticks_that_read_minutes_give_the_rows_of_the_day(tmp_path: Path) -> None:
    quotes = exchange_day.quotes_of(SPAN, 3)
    marks = exchange_day.coverage_of(SPAN, 3)
    # One symbol is quiet for twenty minutes, one shows a spike that is taken back, one is late.
    names = exchange_day.names_of(3)
    symbol, received = pl.col("symbol"), pl.col("received_at")
    quiet = received.is_between(MIDNIGHT + MINUTE, MIDNIGHT + 21 * MINUTE)
    quotes = quotes.filter(~((symbol == names[0]) & quiet))
    spike = (symbol == names[1]) & (pl.int_range(pl.len()).over("symbol") == 300)
    late = (symbol == names[2]) & (pl.int_range(pl.len()).over("symbol") % 250 == 249)
    counter = pl.col("cumulative_volume")
    quotes = quotes.with_columns(
        pl.when(spike).then(counter * 9).otherwise(counter).alias("cumulative_volume"),
        pl.when(late).then(received + 70 * SECOND).otherwise(received).alias("received_at"),
    )
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as lake:
        at = MIDNIGHT
        while at < SPAN.end:
            land(lake, quotes, marks, TimeWindow(at, at + MINUTE))
            tick(lake)
            at += MINUTE
        ticked = lake.scan(BARS).collect().sort("symbol", "open_time")
        seen = current_watermark(lake, exchange_day.EXCHANGE)
        assert seen is not None

        build_1s(lake, exchange_day.EXCHANGE, TimeWindow.of_day(MIDNIGHT.date()), watermark=seen)

        assert_frame_equal(ticked, lake.scan(BARS).collect().sort("symbol", "open_time"))
