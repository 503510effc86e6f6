from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.errors import CommitConflict
from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import apply_cleaning, plan_cleaning
from lakehouse_pipeline.lake.maintenance import day_tag, expire, seal, tag_day
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
TABLE = "market.bars_1m"
Frames = Callable[..., pl.DataFrame]


def stored(lake: Lakehouse) -> set[Path]:
    folder = Path(lake.load(TABLE).location())
    return {path for path in folder.rglob("*") if path.is_file()}


def worn(lake: Lakehouse, bars: Frames) -> pl.DataFrame:
    """Fill the table and leave files behind that only expired snapshots knew."""
    for minute in range(4):
        lake.append(TABLE, bars(TEN + minute * MINUTE))
    seal(lake, TABLE, before=TEN + DAY)
    expire(lake, TABLE, keep=1)
    return lake.scan(TABLE).collect().sort("symbol", "open_time")


def test_everything_in_a_fresh_table_is_reachable(lake: Lakehouse, bars: Frames) -> None:
    for minute in range(3):
        lake.append(TABLE, bars(TEN + minute * MINUTE))

    assert plan_cleaning(lake, TABLE, older_than=NEVER).files == ()


def test_what_expiry_left_is_deleted_and_nothing_else(lake: Lakehouse, bars: Frames) -> None:
    rows = worn(lake, bars)
    before = stored(lake)

    plan = plan_cleaning(lake, TABLE, older_than=NEVER)
    result = apply_cleaning(lake, plan)

    kinds = {".parquet": 0, ".avro": 0, ".json": 0}
    for file in plan.files:
        kinds[Path(file.path).suffix] += 1
    assert kinds[".parquet"] == 4
    assert kinds[".json"] == 0
    assert (result.files, result.bytes) == (len(plan.files), plan.bytes)
    assert before - stored(lake) == {Path(file.path) for file in plan.files}
    assert_frame_equal(lake.scan(TABLE).collect().sort("symbol", "open_time"), rows)
    assert plan_cleaning(lake, TABLE, older_than=NEVER).files == ()


def test_folders_of_hours_long_gone_go_as_well(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    data = Path(lake.load(TABLE).location()) / "data"

    apply_cleaning(lake, plan_cleaning(lake, TABLE, older_than=NEVER))

    assert sorted(path.name for path in data.iterdir()) == [
        "symbol=BINANCE%3ABTCUSDT",
        "symbol=BINANCE%3AETHUSDT",
    ]


def test_planning_deletes_nothing(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    before = stored(lake)

    plan_cleaning(lake, TABLE, older_than=NEVER)

    assert stored(lake) == before


def test_young_files_are_left_to_their_writers(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    oldest = min(plan_cleaning(lake, TABLE, older_than=NEVER).files, key=lambda file: file.modified)
    os.utime(oldest.path, (0, 0))

    plan = plan_cleaning(lake, TABLE, older_than=datetime(2000, 1, 1, tzinfo=UTC))

    assert [file.path for file in plan.files] == [oldest.path]


def test_old_files_outlive_their_snapshots_by_the_guard_time(lake: Lakehouse, bars: Frames) -> None:
    now, slice_ = datetime.now(UTC), Slice("BINANCE", TimeWindow(TEN, TEN + MINUTE))
    written: list[set[Path]] = []
    for age in (5, 4, 3, 2, 0):
        before = stored(lake)
        lake.overwrite(TABLE, bars(close=float(age)), slice=slice_)
        written.append(stored(lake) - before)
        for path in written[-1]:
            os.utime(path, ((now - age * DAY).timestamp(),) * 2)
        if age == 2:
            held = lake.scan(TABLE)
    expire(lake, TABLE, keep=1)

    apply_cleaning(lake, plan_cleaning(lake, TABLE, older_than=now - DAY))

    # What the reader planned was live a minute ago; what was replaced days before was not.
    assert held.collect()["close"].unique().to_list() == [2.0]
    assert [path for path in written[0] if path.suffix == ".parquet" and path.exists()] == []
    later = plan_cleaning(lake, TABLE, older_than=NEVER)
    assert {Path(file.path) for file in later.files} >= {
        path for path in written[3] if path.suffix == ".parquet"
    }


def test_a_tagged_snapshot_keeps_its_files(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars())
    tag_day(lake, TABLE, TEN.date())
    worn(lake, bars)

    apply_cleaning(lake, plan_cleaning(lake, TABLE, older_than=NEVER))

    assert lake.scan(TABLE, snapshot=day_tag(TEN.date())).collect().height == 2


def test_a_file_committed_after_the_plan_is_not_deleted(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    plan = plan_cleaning(lake, TABLE, older_than=NEVER)
    lake.append(TABLE, bars(TEN + 9 * MINUTE))
    newest = lake.files(TABLE).filter(spec="hot")["path"].item()
    # As if its data file had been written, but not committed, when the plan was made.
    late = type(plan)(plan.table, (*plan.files, type(plan.files[0])(newest, 1, TEN)))

    apply_cleaning(lake, late)

    assert Path(newest).exists()
    assert lake.scan(TABLE).collect().height == 10


def test_a_file_gone_already_is_as_good_as_deleted(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    plan = plan_cleaning(lake, TABLE, older_than=NEVER)
    Path(plan.files[0].path).unlink()

    first, second = apply_cleaning(lake, plan), apply_cleaning(lake, plan)

    assert first.files == len(plan.files) - 1
    assert second.files == 0


def test_a_writer_that_slept_past_the_guard_time_publishes_nothing_that_is_gone(
    lake: Lakehouse, bars: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse_pipeline.lake import lakehouse

    rows = worn(lake, bars)
    write = lakehouse.write_files

    def sleepily(*arguments, **options):
        written = write(*arguments, **options)
        apply_cleaning(lake, plan_cleaning(lake, TABLE, older_than=NEVER))
        return written

    monkeypatch.setattr(lakehouse, "write_files", sleepily)

    with pytest.raises(CommitConflict, match="cleaned away before its commit"):
        lake.append(TABLE, bars(TEN + 9 * MINUTE))

    assert_frame_equal(lake.scan(TABLE).collect().sort("symbol", "open_time"), rows)
