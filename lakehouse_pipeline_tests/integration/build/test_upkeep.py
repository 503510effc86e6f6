"""What only builders know of keeping tables small: who has read what, and when days agree."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.api import Reader
from lakehouse_pipeline.build.bars import build_1s, current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.build.upkeep import (
    keep_small,
    merge_marks,
    seal_consumed,
    tag_days,
    travel_days,
)
from lakehouse_pipeline.errors import UsageError
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.maintenance import Rewritten, day_tag, expire, tag_day
from lakehouse_pipeline.lake.tables import TABLES
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.scripted import Script

# Half an hour before a UTC midnight.
START = datetime(2026, 1, 5, 23, 30, tzinfo=UTC)
DAY_OF_IT = START.date()
MORNING = datetime(2026, 1, 6, 1, tzinfo=UTC)
LATER = MORNING + 5 * DAY


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings(state_dir=tmp_path, config=tmp_path / "none.yaml")) as lake:
        yield lake


def land(lake: Lakehouse, *, start: datetime, minutes: int, writer: str) -> None:
    script = Script(start=start, writer=writer).session(writer, alive=(0, minutes * 60 + 6))
    script.snapshot(0.5, writer, last_price=99.0, cumulative_volume=1.0, trade=-60)
    for second in range(1, minutes * 60 + 1, 5):
        script.trade(second + 0.3, 100.0 + second % 7, 2.0 + second, session=writer)
    lake.append("raw.quotes", script.quotes)
    lake.append("raw.coverage", script.coverage)


def keep_all(lake: Lakehouse) -> list[Rewritten]:
    return [done for table in TABLES for done in keep_small(lake, table, before=LATER)]


def tick(lake: Lakehouse, exchange: str = "BINANCE") -> None:
    watermark = current_watermark(lake, exchange)
    assert watermark is not None
    tick_1s(lake, exchange, watermark=watermark)
    tick_1m(lake, exchange, watermark=watermark)


def finish(lake: Lakehouse, exchange: str = "BINANCE") -> None:
    """Build the day as the night does, and tick: the minutes then know of its new seconds."""
    build_day(lake, exchange, DAY_OF_IT, studies=[])
    tick(lake, exchange)


@pytest.fixture
def unfinished(lake: Lakehouse) -> Lakehouse:
    """A lake with quotes and bars over a midnight, ticked on both sides of it."""
    land(lake, start=START, minutes=10, writer="evening")
    tick(lake)
    land(lake, start=START + 20 * MINUTE, minutes=20, writer="night")
    tick(lake)
    return lake


@pytest.fixture
def night(unfinished: Lakehouse) -> Lakehouse:
    """The same with the day before midnight finished."""
    finish(unfinished)
    return unfinished


def late_quote(lake: Lakehouse) -> None:
    script = Script(start=START + 9 * MINUTE, writer="late")
    script.snapshot(1, "late", last_price=50.0, cumulative_volume=500.0, trade=0)
    script.trade(20, 5000.0, 600.0, session="late")
    lake.append("raw.quotes", script.quotes)


def test_what_bars_have_not_read_stays_hot(lake: Lakehouse) -> None:
    land(lake, start=START, minutes=2, writer="first")
    tick(lake)
    land(lake, start=START + 3 * MINUTE, minutes=2, writer="second")

    done = seal_consumed(lake, "raw.quotes", before=LATER)

    assert done.files_removed == 1
    assert lake.files("raw.quotes")["spec"].sort().to_list() == ["hot", "sealed"]


def test_keeping_small_leaves_one_file_a_closed_partition(night: Lakehouse) -> None:
    before = {table: night.scan(table).collect() for table in ("raw.quotes", "market.bars_1s")}

    done = keep_all(night)

    assert sum(result.commits for result in done) >= 4
    for table in ("raw.quotes", "raw.coverage", "market.bars_1s", "market.bars_1m"):
        files = night.files(table)
        assert set(files["spec"]) == {"sealed"}
        assert files["partition"].is_unique().all()
    for table, rows in before.items():
        assert_frame_equal(night.scan(table).collect(), rows, check_row_order=False)


def test_a_tick_after_sealing_finds_nothing_to_do_again(night: Lakehouse) -> None:
    keep_all(night)
    head = night.head("market.bars_1s")

    tick(night)

    assert night.head("market.bars_1s") == head


def test_coverage_of_a_running_day_stays_below_sixteen_files(lake: Lakehouse) -> None:
    script = Script(start=START)
    for number in range(40):
        script.session(f"s{number}", alive=(number * 10, number * 10 + 10))
        lake.append("raw.coverage", script.coverage[-2:])
        merge_marks(lake)
        assert lake.files("raw.coverage").height <= 17

    assert_frame_equal(lake.scan("raw.coverage").collect(), script.coverage, check_row_order=False)


def test_a_day_that_is_over_gets_its_tag_once(night: Lakehouse) -> None:
    assert tag_days(night, now=MORNING) == [DAY_OF_IT]
    assert tag_days(night, now=MORNING) == []
    assert travel_days(night) == [DAY_OF_IT]


def test_a_day_waits_until_it_is_built_as_a_whole(unfinished: Lakehouse) -> None:
    assert tag_days(unfinished, now=MORNING) == []
    assert DAY_OF_IT not in tag_days(unfinished, now=MORNING + 2 * DAY)

    finish(unfinished)
    assert tag_days(unfinished, now=MORNING) == [DAY_OF_IT]


def test_a_day_waits_while_late_quotes_make_it_due(night: Lakehouse) -> None:
    late_quote(night)

    assert tag_days(night, now=MORNING) == []

    tick(night)  # the bars have read them, but what else is built from them has not
    assert tag_days(night, now=MORNING) == []

    finish(night)
    assert tag_days(night, now=MORNING) == [DAY_OF_IT]


def test_a_day_waits_for_every_exchange_with_rows(night: Lakehouse) -> None:
    named = pl.col("symbol").str.replace("BINANCE", "OKX")
    for table in ("raw.quotes", "raw.coverage"):
        rows = night.scan(table).collect()
        night.append(table, rows.with_columns(named, exchange=pl.lit("OKX")))
    tick(night, "OKX")

    assert tag_days(night, now=MORNING) == []

    finish(night, "OKX")
    assert tag_days(night, now=MORNING) == [DAY_OF_IT]


def test_a_day_waits_until_minutes_have_read_its_rebuilt_seconds(night: Lakehouse) -> None:
    watermark = current_watermark(night, "BINANCE")
    assert watermark is not None
    build_1s(night, "BINANCE", TimeWindow.of_day(DAY_OF_IT), watermark=watermark)

    assert tag_days(night, now=MORNING) == []

    tick(night)
    assert tag_days(night, now=MORNING) == [DAY_OF_IT]


def test_a_day_waits_for_a_silent_worker_until_the_next_is_over(lake: Lakehouse) -> None:
    land(lake, start=START, minutes=10, writer="evening")
    tick(lake)

    assert tag_days(lake, now=MORNING) == []
    assert tag_days(lake, now=MORNING + DAY) == [DAY_OF_IT]


def test_a_half_tagged_day_is_tagged_anew(night: Lakehouse) -> None:
    tag_day(night, "market.bars_1m", DAY_OF_IT)  # and then it was killed
    assert travel_days(night) == []

    assert tag_days(night, now=MORNING) == [DAY_OF_IT]


def test_a_half_tagged_day_cannot_be_travelled_to(night: Lakehouse) -> None:
    tag_day(night, "raw.quotes", DAY_OF_IT)  # and then it was killed

    with pytest.raises(UsageError, match="Days: none yet"):
        Reader(night).scan("raw.quotes", as_of=DAY_OF_IT)


def test_tables_agree_at_a_day_whatever_came_later(night: Lakehouse) -> None:
    tag_days(night, now=MORNING)
    reader = Reader(night)
    before = {
        table: reader.scan(table, as_of=DAY_OF_IT).collect().sort(pl.all())
        for table in ("raw.quotes", "market.bars_1s", "market.bars_1m")
    }

    late_quote(night)
    land(night, start=MORNING, minutes=1, writer="morning")
    tick(night)
    keep_all(night)
    for table in before:
        expire(night, table, keep=1)

    after = {table: reader.scan(table, as_of=str(DAY_OF_IT)).collect() for table in before}
    for table, rows in before.items():
        assert_frame_equal(after[table].sort(pl.all()), rows)
    window = TimeWindow.of_day(DAY_OF_IT)
    coverage = night.scan("raw.coverage", window=TimeWindow(START - HOUR, MORNING)).collect()
    rebuilt = build_bars_1s(after["raw.quotes"], coverage, window, window.end + timedelta(hours=1))
    stored = after["market.bars_1s"].sort("open_time")
    same = ["open_time", "open", "high", "low", "close", "volume", "price_updates"]
    assert_frame_equal(rebuilt.sort("open_time").select(same), stored.select(same))
    assert after["market.bars_1m"]["price_updates"].sum() == stored["price_updates"].sum()


def test_a_day_shows_nothing_of_later_days(night: Lakehouse) -> None:
    tag_days(night, now=MORNING)

    rows = Reader(night).scan("market.bars_1m", as_of=DAY_OF_IT).collect()

    assert rows["open_time"].max() == START + 29 * MINUTE
    assert night.scan("market.bars_1m", snapshot=day_tag(DAY_OF_IT)).collect().height > rows.height


def test_a_day_without_tag_is_named_with_those_there_are(night: Lakehouse) -> None:
    tag_days(night, now=MORNING)
    reader = Reader(night)

    assert reader.days() == [DAY_OF_IT]
    with pytest.raises(UsageError, match="Days: 2026-01-05"):
        reader.scan("raw.quotes", as_of="2026-01-04")
    with pytest.raises(
        UsageError, match=r"Kept by day: market.bars_1m, market.bars_1s, raw.quotes"
    ):
        reader.scan("market.gaps", as_of=DAY_OF_IT)
    with pytest.raises(UsageError, match="is not a date"):
        reader.scan("raw.quotes", as_of="yesterday")
    with pytest.raises(UsageError, match="is after 2026-01-05"):
        reader.scan("raw.quotes", as_of=DAY_OF_IT, start="2026-01-06")
