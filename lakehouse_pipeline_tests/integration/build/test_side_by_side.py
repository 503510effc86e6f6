"""Builds of different days at the same time, as other engines and a backfill do them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.build.bars import build_1m, build_1s, built_seconds
from lakehouse_pipeline.build.freshness import notes_of
from lakehouse_pipeline.build.inputs import Inputs
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import DAY, TimeWindow, floor
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.scripted import START, Script

BARS_1S = "market.bars_1s"
FIRST = TimeWindow.of_day(START.date())
SECOND = TimeWindow.of_day(START.date() + timedelta(days=1))
SEEN = floor(START, DAY) + 3 * DAY


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


class Overtaken(Lakehouse):
    """A lake that another build is faster than: it runs once this one has read its quotes."""

    window: TimeWindow | None = None

    def scan(self, table, **asked):
        found = super().scan(table, **asked)
        if table == "raw.quotes" and self.window is not None:
            window, self.window = self.window, None
            with Lakehouse(self.catalog) as faster:
                build_1s(faster, "BINANCE", window, watermark=SEEN)
        return found


@pytest.mark.parametrize(("slow", "fast"), [(FIRST, SECOND), (SECOND, FIRST)])
@pytest.mark.parametrize("recorded", [(0, 1), (0,), (1,)])
def test_builds_side_by_side_keep_what_each_says(lake, slow, fast, recorded):
    for day in recorded:
        script = Script(start=START + day * DAY).session("s", alive=(0, 60))
        script.snapshot(1, "s", last_price=1.0, cumulative_volume=1.0, trade=0)
        script.trade(9.5, 2.0, 3.0, session="s")
        lake.append("raw.quotes", script.quotes)
        lake.append("raw.coverage", script.coverage)
    overtaken = Overtaken(lake.catalog)
    overtaken.window = fast

    build_1s(overtaken, "BINANCE", slow, watermark=SEEN)

    notes = notes_of(lake, BARS_1S, "BINANCE")
    assert overtaken.window is None
    assert set(notes.days) == {FIRST.start.date(), SECOND.start.date()}
    assert built_seconds(lake, "BINANCE", SEEN) == SECOND.end


def test_minutes_are_made_of_the_seconds_there_are_though_a_build_still_holds_older_ones(lake):
    script = Script().session("s", alive=(0, 60))
    script.snapshot(1, "s", last_price=1.0, cumulative_volume=1.0, trade=0)
    script.trade(9.5, 2.0, 3.0, session="s")
    lake.append("raw.quotes", script.quotes)
    lake.append("raw.coverage", script.coverage)
    inputs = Inputs(lake, "BINANCE", FIRST.start.date())
    build_1s(lake, "BINANCE", FIRST, watermark=SEEN, inputs=inputs)
    held = inputs.seconds(FIRST)
    assert held is inputs.seconds(FIRST)  # not read

    script.trade(11.5, 7.0, 4.0, session="s")
    lake.append("raw.quotes", script.quotes.filter(pl.col("last_price") == 7.0))
    with Lakehouse(lake.catalog) as faster:
        build_1s(faster, "BINANCE", FIRST, watermark=SEEN)

    build_1m(lake, "BINANCE", FIRST, watermark=SEEN, inputs=inputs)

    assert lake.scan("market.bars_1m").collect()["close"].to_list() == [7.0]
    assert inputs.seconds(FIRST).height == held.height + 1
