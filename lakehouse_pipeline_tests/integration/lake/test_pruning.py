"""Which files a reader touches, over many days, both specs and in a process that reads anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.lake import DataFileInfo, Lakehouse, Slice
from lakehouse_pipeline.lake.commit import MERGED_AT_ONCE
from lakehouse_pipeline.lake.maintenance import seal
from lakehouse_pipeline.lake.packing import ENTRIES, live_files
from lakehouse_pipeline.lake.slices import Selection
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow
from lakehouse_pipeline.settings import Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
TABLE = "market.bars_1m"
SYMBOL = "BINANCE:BTCUSDT"
Frames = Callable[..., pl.DataFrame]


@pytest.fixture
def year(lake: Lakehouse, bars: Frames) -> Lakehouse:
    """365 days of two symbols, sealed, one file each."""
    start = TEN - 200 * DAY
    frame = pl.concat(bars(start + day * DAY, minutes=2) for day in range(365))
    whole = TimeWindow(start.replace(hour=0), start.replace(hour=0) + 365 * DAY)
    lake.overwrite(TABLE, frame, slice=Slice("BINANCE", whole))
    assert lake.files(TABLE).height == 2 * 365
    return lake


@pytest.mark.usefixtures("year")
@pytest.mark.parametrize("days", [-200, -1, 0, 164])
def test_one_symbol_and_hour_of_a_year_touches_one_file(settings: Settings, days: int) -> None:
    at = TEN + days * DAY
    with Lakehouse.open(settings) as anew:
        window = TimeWindow(at, at + HOUR)
        files = anew.live_files(TABLE, Selection(window=window, symbols=(SYMBOL,)))
        rows = anew.scan(TABLE, window=window, symbols=[SYMBOL]).collect()

    assert len(files) == 1
    assert rows["open_time"].to_list() == [at, at + MINUTE]


@pytest.mark.parametrize("whole_days", [False, True])
def test_what_is_pruned_holds_nothing_that_is_asked_for(
    lake: Lakehouse, bars: Frames, *, whole_days: bool
) -> None:
    midnight = TEN.replace(hour=0)
    for hours in (-25, -1, 0, 23, 24):
        lake.append(TABLE, bars(midnight + hours * HOUR, minutes=60))
    everything = lake.scan(TABLE).collect()
    if whole_days:
        days = TimeWindow(midnight - 2 * DAY, midnight + 2 * DAY)
        lake.overwrite(TABLE, everything, slice=Slice("BINANCE", days))
    edges = [midnight + hours * HOUR for hours in (-25, -24.5, -1, -1 / 60, 0, 0.5, 1, 23.5, 24)]

    for start in edges:
        for length in (timedelta(microseconds=1), 30 * MINUTE, HOUR, DAY):
            window = TimeWindow(start, start + length)
            inside = pl.col("open_time").is_between(window.start, window.end, closed="left")
            found = lake.scan(TABLE, window=window, symbols=[SYMBOL]).collect()
            wanted = everything.filter(inside, symbol=SYMBOL)
            assert_frame_equal(found, wanted, check_row_order=False)


def test_a_commit_is_seen_by_those_who_have_read_before(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    with Lakehouse.open(settings) as reader:
        before = reader.scan(TABLE).collect().height
        lake.append(TABLE, bars())
        after = reader.scan(TABLE).collect().height

    assert (before, after) == (0, 2)


def test_what_is_new_is_found_without_what_is_old(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    lake.append(TABLE, bars())
    seen = lake.head(TABLE)
    head = lake.load(TABLE).current_snapshot()
    assert head is not None
    [old] = head.manifests(lake.load(TABLE).io)
    lake.append(TABLE, bars(TEN + MINUTE))
    Path(old.manifest_path.removeprefix("file://")).unlink()

    with Lakehouse.open(settings) as consumer:
        touched = consumer.touched_since(TABLE, seen, "BINANCE")
        rows = consumer.scan(TABLE, after_sequence=seen).collect()

    assert [file.sequence for file in touched] == [seen + 1]
    assert set(rows["open_time"]) == {TEN + MINUTE}


def test_replacing_files_of_one_day_reads_nothing_of_others(
    settings: Settings, lake: Lakehouse, bars: Frames
) -> None:
    midnight = TEN.replace(hour=0)
    days = [TimeWindow(midnight + day * DAY, midnight + (day + 1) * DAY) for day in range(2)]
    for day in days:
        lake.overwrite(TABLE, bars(day.start), slice=Slice("BINANCE", day))
    loaded = lake.load(TABLE)
    snapshot = loaded.current_snapshot()
    assert snapshot is not None
    other = next(each for each in snapshot.manifests(loaded.io) if each.sequence_number == 1)
    Path(other.manifest_path).unlink()

    with Lakehouse.open(settings) as anew:
        anew.overwrite(TABLE, bars(days[1].start, close=2.0), slice=Slice("BINANCE", days[1]))

        assert anew.scan(TABLE, window=days[1]).collect()["close"].to_list() == [2.0, 2.0]


def test_few_manifests_tell_the_same_as_one_for_each_commit(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    commits = 2 * MERGED_AT_ONCE + ENTRIES
    for number in range(commits):
        lake.append(TABLE, bars(TEN + number * HOUR))

    assert _manifests(lake) <= 2 * commits / ENTRIES + MERGED_AT_ONCE
    with Lakehouse.open(settings) as anew:
        files = sorted(anew.live_files(TABLE), key=DataFileInfo.begins)
        assert [file.sequence for file in files] == list(range(1, commits + 1))
        assert anew.scan(TABLE).collect()["open_time"].n_unique() == commits


def test_sealed_rows_keep_their_sequence_when_manifests_are_merged(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    for hour in range(3):
        lake.append(TABLE, bars(TEN + hour * HOUR))
    seal(lake, TABLE, before=TEN + 2 * HOUR)
    for hour in range(3, MERGED_AT_ONCE + 6):
        lake.append(TABLE, bars(TEN + hour * HOUR))
    seal(lake, TABLE, before=TEN + 10 * DAY)

    with Lakehouse.open(settings) as anew:
        first_day = TimeWindow(TEN.replace(hour=0), TEN.replace(hour=0) + DAY)
        files = anew.live_files(TABLE, Selection(window=first_day))
        # Of each symbol the hours of commits 1 and 2, then those of 3 and of 5 to 15: 4 was a seal.
        assert sorted(file.sequence for file in files) == [2, 2, 15, 15]
    assert _manifests(lake) <= 4


def _manifests(lake: Lakehouse) -> int:
    table = lake.load(TABLE)
    head = table.current_snapshot()
    assert head is not None
    return len([each for each in head.manifests(table.io) if live_files(each)])
