"""The bars' benchmark, small: peers agree, and every line is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse_pipeline_tests.benchmarks import bars

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]


def test_bars_are_those_of_the_peers_and_are_measured(tmp_path: Path) -> None:
    lines = {line.what: line for line in bars.run(tmp_path, scale=0.04, say=print)}

    assert {"kernel: time / DuckDB", "tick: time / build"} <= lines.keys()
    assert all(line.value > 0 for line in lines.values())
