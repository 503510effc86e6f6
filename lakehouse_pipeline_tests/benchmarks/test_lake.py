"""The lake's benchmarks, small: whether they run, and the limits that do not depend on size."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from lakehouse_pipeline.market.windows import MINUTE, SECOND, TimeWindow
from lakehouse_pipeline_tests.benchmarks import files, memory, month

QUOTES = "raw.quotes"

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]


def test_files_are_read_and_rewritten_beside_plain_ways(tmp_path: Path) -> None:
    lines = {line.what: line for line in files.run(tmp_path, scale=0.05, say=print)}

    assert lines["files for one symbol and hour of 20 days"].met
    assert all(line.value > 0 for line in lines.values())


def test_many_partitions_take_no_more_memory_than_few(tmp_path: Path) -> None:
    lines = memory.run(tmp_path, scale=0.3, say=print)

    assert [line for line in lines if line.met is False] == []


def test_a_short_month_stays_small_and_is_told_from_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(month, "DAYS", 4)
    world, fresh, times = month.simulate(tmp_path, month.Shape.of(0.05), print)

    kept = {line.what: line for line in month.judge(world, fresh, times)}

    assert [line for line in kept.values() if line.met is False and " / " not in line.what] == []

    _undo_upkeep(world)
    undone = {line.what: line for line in month.judge(world, fresh, times)}

    for what in (
        "newest 14 days without a way back",
        "raw.quotes: files too many, in the worst partition",
        "raw.quotes: snapshots without tags",
    ):
        assert undone[what].met is False
    ratio = "bytes on disk / live bytes"
    assert undone[ratio].value > kept[ratio].value


def _undo_upkeep(world: month.World) -> None:
    """Leave the lake as if nobody had tagged, sealed, expired or cleaned it."""
    quotes = world.lake.load(QUOTES)
    with quotes.manage_snapshots() as changes:
        changes.remove_tag(min(world.lake.tags(QUOTES)))
    late = TimeWindow(month.FIRST_DAY, month.FIRST_DAY + MINUTE)
    world.recorders[0].record(late, SECOND)
    world.recorders[0].commit()
    for _ in range(12):
        quotes.refresh()
        quotes.append(quotes.schema().as_arrow().empty_table())
    orphan = Path(world.lake.files(QUOTES)["path"][0]).with_name(f"{uuid.uuid4()}.parquet")
    orphan.write_bytes(bytes(1 << 20))
    os.utime(orphan, (0, 0))
