"""The indicators' benchmark, small: whether it runs, and that its libraries agree."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.bench


def test_the_comparison_with_the_peers_runs(tmp_path: Path):
    pytest.importorskip("polars_talib")
    from lakehouse_pipeline_tests.benchmarks import indicators

    lines = indicators.run(tmp_path, scale=0.04, say=print)

    assert {"time / TA-Lib on arrays", "time / polars-talib"} <= {line.what for line in lines}
    assert all(line.value > 0 for line in lines)  # limits are of 50 symbols, not of two
