"""Official minutes land once, and the next tick puts them into the bars, however old they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.history import land
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.ingest.history import History
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.repair import Ended
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.scripted import DAY, START, SYMBOL, Script

TABLE = "market.history_1m"


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


def answer(*minutes: int, of: datetime = START, close: float = 105.0, fetched: int = 60) -> History:
    at = of + fetched * MINUTE
    bars = pl.DataFrame(
        [("BINANCE", SYMBOL, of + n * MINUTE, 100.0, 110.0, 90.0, close, 7.0, at) for n in minutes],
        schema=HISTORY,
        orient="row",
    )
    return History(bars, of, at, Ended.REACHED)


def stored(lake: Lakehouse, table: str = TABLE) -> pl.DataFrame:
    return lake.scan(table).sort("symbol", "open_time").collect()


def record(lake: Lakehouse, start: datetime, writer: str) -> None:
    """Five minutes of trades, minute 2 of which nobody saw."""
    script = Script(start=start, writer=writer)
    for name, first, last in (("s1", 0, 110), ("s2", 185, 306)):
        session = f"{writer}-{name}"
        script.session(session, alive=(first, last))
        script.snapshot(
            first + 0.2, session, last_price=99.0, cumulative_volume=1000.0 + first, trade=first - 1
        )
        for second in range(first + 1, min(last, 300)):
            script.trade(second + 0.3, 100.0, 1000.0 + second, trade=second, session=session)
    lake.append("raw.quotes", script.quotes)
    lake.append("raw.coverage", script.coverage)


def tick(lake: Lakehouse) -> list:
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None
    tick_1s(lake, "BINANCE", watermark=seen)
    return tick_1m(lake, "BINANCE", watermark=seen)


def test_landing_the_same_answer_again_commits_nothing(lake: Lakehouse):
    assert land(lake, "BINANCE", SYMBOL, answer(0, 1, 2)) == 3
    head, rows = lake.head(TABLE), stored(lake)

    assert land(lake, "BINANCE", SYMBOL, answer(0, 1, 2, fetched=90)) == 0

    assert lake.head(TABLE) == head
    assert stored(lake).equals(rows)


def test_only_what_is_new_or_revised_changes_and_nothing_is_deleted(lake: Lakehouse):
    land(lake, "BINANCE", SYMBOL, answer(0, 1, 2, 5))
    land(lake, "BINANCE", SYMBOL, answer(1, close=106.0, fetched=90))
    land(lake, "BINANCE", SYMBOL, answer(3, fetched=95))

    rows = stored(lake)

    assert [(t - START) // MINUTE for t in rows["open_time"]] == [0, 1, 2, 3, 5]
    assert rows["close"].to_list() == [105.0, 106.0, 105.0, 105.0, 105.0]
    assert [(t - START) // MINUTE for t in rows["fetched_at"]] == [60, 90, 60, 95, 60]


def test_an_answer_without_bars_lands_nothing(lake: Lakehouse):
    assert land(lake, "BINANCE", SYMBOL, answer()) == 0
    assert lake.head(TABLE) == 0


def test_a_tick_merges_history_that_came_since_the_last_one(lake: Lakehouse):
    record(lake, START, "w1")
    tick(lake)
    before = stored(lake, "market.bars_1m")
    land(lake, "BINANCE", SYMBOL, answer(1, 2, 3))

    tick(lake)

    bars = stored(lake, "market.bars_1m")
    assert bars["source"].to_list() == ["stream", "mixed", "official", "mixed", "stream"]
    assert bars["close"].to_list()[1:4] == [105.0] * 3
    assert_frame_equal(bars[[0, 4]], before[[0, -1]])
    assert tick(lake) == []


def test_history_of_days_ago_is_merged_without_building_the_days_between(lake: Lakehouse):
    then = START - 3 * DAY
    record(lake, then, "w1")
    record(lake, START, "w2")
    for day in (then.date(), START.date()):
        build_day(lake, "BINANCE", day, studies=[])
    tick(lake)
    land(lake, "BINANCE", SYMBOL, answer(2, of=then))

    results = tick(lake)

    assert [(r.slice.window.start, r.slice.window.length) for r in results] == [
        (then + 2 * MINUTE, timedelta(minutes=1))
    ]
    old = stored(lake, "market.bars_1m").filter(pl.col("open_time") < then + DAY)
    assert old.filter(open_time=then + 2 * MINUTE)["source"].to_list() == ["official"]


def test_ticks_and_a_build_of_the_day_agree_on_repaired_minutes(lake: Lakehouse):
    record(lake, START, "w1")
    tick(lake)
    land(lake, "BINANCE", SYMBOL, answer(0, 1, 2, 3))
    tick(lake)
    ticked = stored(lake, "market.bars_1m")

    build_day(lake, "BINANCE", START.date(), studies=[])

    assert_frame_equal(ticked, stored(lake, "market.bars_1m"))
