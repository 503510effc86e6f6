"""The lake's benchmarks, small: whether they run, and the limits that do not depend on size."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse_pipeline_tests.benchmarks import files, memory, month

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]


def test_files_are_read_and_rewritten_beside_plain_ways(tmp_path: Path) -> None:
    lines = {line.what: line for line in files.run(tmp_path, scale=0.05, say=print)}

    assert lines["files for one symbol and hour of 20 days"].met
    assert all(line.value > 0 for line in lines.values())


def test_many_partitions_take_no_more_memory_than_few(tmp_path: Path) -> None:
    lines = memory.run(tmp_path, scale=0.3, say=print)

    assert [line for line in lines if line.met is False] == []


def test_a_short_month_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month, "DAYS", 4)

    lines = month.run(tmp_path, scale=0.05, say=print)

    assert [line for line in lines if line.met is False and " / " not in line.what] == []
    assert {"raw.quotes: tags", "bytes on disk / live bytes"} <= {line.what for line in lines}
