"""Dagster's benchmarks, small: whether they run, and the limits that do not depend on size."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(600),
    # What Dagster itself does that pydantic or Dagster has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_a_backfill_equals_a_build(tmp_path: Path) -> None:
    from lakehouse_pipeline_tests.benchmarks import orchestration

    orchestration.backfill(tmp_path, 2, 2, print)  # compares the rows, whatever it took


def test_a_few_ticks_leave_every_day_recorded(tmp_path: Path) -> None:
    from lakehouse_pipeline_tests.benchmarks import instance

    lines = {line.what: line for line in instance.run(tmp_path, scale=0.04, say=print)}

    assert lines["finished days without a record"].value == 0
    assert lines["records of finished days that were deleted"].value == 0
    assert lines["what a day leaves for good, after the third"].met
