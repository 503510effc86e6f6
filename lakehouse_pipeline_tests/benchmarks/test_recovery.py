"""The recovery table, small: nothing negative, session volume exact, every figure there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse_pipeline_tests.benchmarks import recovery

pytestmark = pytest.mark.bench


@pytest.mark.timeout(240)
def test_real_trades_through_both_counters(tmp_path: Path, shared_data: Path):
    assert shared_data.is_dir()

    lines = recovery.run(tmp_path, scale=0.15, say=print)

    assert [line for line in lines if line.met is False] == []
    named = {line.what for line in lines}
    assert {"session 1s, close equal", "rolling 1m, rolled_comp: absolute error"} <= named
