from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.errors import CommitConflict, UsageError
from lakehouse_pipeline.lake import Lakehouse, Slice, cleaning
from lakehouse_pipeline.lake.cleaning import (
    GUARD,
    NO_GUARD,
    apply_cleaning,
    checked_guard,
    plan_cleaning,
)
from lakehouse_pipeline.lake.condemned import read_condemned, write_condemned
from lakehouse_pipeline.lake.folder import CONDEMNED, StoredFile
from lakehouse_pipeline.lake.maintenance import day_tag, expire, seal, tag_day
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
TABLE = "market.bars_1m"
Frames = Callable[..., pl.DataFrame]


def stored(lake: Lakehouse) -> set[Path]:
    folder = Path(lake.load(TABLE).location())
    files = {path for path in folder.rglob("*") if path.is_file()}
    return files - {folder / CONDEMNED}


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

    assert plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD).files == ()


def test_what_expiry_left_is_deleted_and_nothing_else(lake: Lakehouse, bars: Frames) -> None:
    rows = worn(lake, bars)
    before = stored(lake)

    plan = plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD)
    result = apply_cleaning(lake, plan)

    kinds = {".parquet": 0, ".avro": 0, ".json": 0}
    for file in plan.files:
        kinds[Path(file.path).suffix] += 1
    assert kinds[".parquet"] == 4
    assert kinds[".json"] == 0
    assert (result.files, result.bytes) == (len(plan.files), plan.bytes)
    assert before - stored(lake) == {Path(file.path) for file in plan.files}
    assert_frame_equal(lake.scan(TABLE).collect().sort("symbol", "open_time"), rows)
    assert plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD).files == ()


def test_folders_of_hours_long_gone_go_as_well(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    data = Path(lake.load(TABLE).location()) / "data"

    apply_cleaning(lake, plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD))

    assert sorted(path.name for path in data.iterdir()) == [
        "symbol=BINANCE%3ABTCUSDT",
        "symbol=BINANCE%3AETHUSDT",
    ]


def test_planning_deletes_nothing(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    before = stored(lake)

    plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD)

    assert stored(lake) == before


def cleaned(lake: Lakehouse, now: datetime) -> int:
    """Clean as the schedule does at *now*; return how many files went."""
    return apply_cleaning(lake, plan_cleaning(lake, TABLE, now=now)).files


def test_a_file_goes_a_guard_time_after_it_was_found_unreachable(
    lake: Lakehouse, bars: Frames
) -> None:
    worn(lake, bars)
    soon = datetime.now(UTC) + 2 * HOUR

    found = apply_cleaning(lake, plan_cleaning(lake, TABLE, now=soon))
    early = apply_cleaning(lake, plan_cleaning(lake, TABLE, now=soon + GUARD - MINUTE))
    late = apply_cleaning(lake, plan_cleaning(lake, TABLE, now=soon + GUARD))

    assert found.files == early.files == late.waiting == 0
    assert found.waiting == early.waiting == late.files > 4


def test_a_reader_keeps_an_old_file_that_was_replaced_just_now(
    lake: Lakehouse, bars: Frames
) -> None:
    lake.append(TABLE, bars())
    for path in stored(lake):
        os.utime(path, (0, 0))  # the day was built long ago
    held = lake.scan(TABLE)
    lake.overwrite(TABLE, bars(close=2.0), slice=Slice("BINANCE", TimeWindow(TEN, TEN + MINUTE)))
    expire(lake, TABLE, keep=1)

    assert cleaned(lake, datetime.now(UTC)) == 0
    assert held.collect()["close"].to_list() == [1.0, 1.0]


def test_files_are_left_to_whoever_writes_them(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)

    plan = plan_cleaning(lake, TABLE, now=datetime.now(UTC))

    assert (plan.files, plan.waiting) == ((), ())  # younger than any commit takes


def test_a_file_that_is_of_use_again_is_no_longer_condemned(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    now = datetime.now(UTC) + 2 * HOUR
    cleaned(lake, now)
    noted = read_condemned(lake.load(TABLE))
    live = lake.files(TABLE)["path"][0]
    write_condemned(lake.load(TABLE), replace(noted, since={**noted.since, live: TEN}))

    cleaned(lake, now + HOUR)

    assert read_condemned(lake.load(TABLE)) == noted
    assert Path(live).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"condemned": {"a": 1}, "accepted": []}'])
def test_notes_that_are_lost_mean_another_guard_time(
    lake: Lakehouse, bars: Frames, text: str
) -> None:
    worn(lake, bars)
    now = datetime.now(UTC) + 2 * HOUR
    cleaned(lake, now)
    (Path(lake.load(TABLE).location()) / CONDEMNED).write_text(text)

    assert cleaned(lake, now + GUARD) == 0
    assert cleaned(lake, now + 2 * GUARD) > 4


def test_a_cleaning_killed_between_two_files_is_finished_by_the_next(
    lake: Lakehouse, bars: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    worn(lake, bars)
    now = datetime.now(UTC) + 2 * HOUR
    waiting = apply_cleaning(lake, plan_cleaning(lake, TABLE, now=now)).waiting
    plan = plan_cleaning(lake, TABLE, now=now + GUARD)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cleaning, "_remove_empty_folders", killed)
    with pytest.raises(KeyboardInterrupt):
        apply_cleaning(lake, plan)
    monkeypatch.undo()

    assert cleaned(lake, now + GUARD) == waiting - 1


def test_a_guard_time_shorter_than_a_commit_is_refused() -> None:
    assert checked_guard(HOUR) == HOUR
    with pytest.raises(UsageError, match="too short"):
        checked_guard(HOUR - MINUTE)


def test_a_tagged_snapshot_keeps_its_files(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars())
    tag_day(lake, TABLE, TEN.date())
    worn(lake, bars)

    apply_cleaning(lake, plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD))

    assert lake.scan(TABLE, snapshot=day_tag(TEN.date())).collect().height == 2


def test_a_file_committed_after_the_plan_is_not_deleted(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    plan = plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD)
    lake.append(TABLE, bars(TEN + 9 * MINUTE))
    newest = lake.files(TABLE).filter(spec="hot")["path"].item()
    # As if its data file had been written, but not committed, when the plan was made.
    late = replace(plan, files=(*plan.files, StoredFile(newest, 1, TEN)))

    apply_cleaning(lake, late)

    assert Path(newest).exists()
    assert lake.scan(TABLE).collect().height == 10


def test_a_file_gone_already_is_as_good_as_deleted(lake: Lakehouse, bars: Frames) -> None:
    worn(lake, bars)
    plan = plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD)
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
        apply_cleaning(lake, plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD))
        return written

    monkeypatch.setattr(lakehouse, "write_files", sleepily)

    with pytest.raises(CommitConflict, match="cleaned away before its commit"):
        lake.append(TABLE, bars(TEN + 9 * MINUTE))

    assert_frame_equal(lake.scan(TABLE).collect().sort("symbol", "open_time"), rows)
