"""The ingest benchmark, small: whether it runs, and that every figure is one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench


def test_commits_keep_their_cost(tmp_path: Path):
    from lakehouse_pipeline_tests.benchmarks import commits

    (line,) = commits.run(tmp_path / "lake", scale=0.15, say=print)

    assert line.value > 0


@pytest.mark.timeout(180)
def test_the_load_runs(tmp_path: Path):
    from lakehouse_pipeline_tests.benchmarks import ingest

    lines = asyncio.run(ingest.load(tmp_path, timedelta(seconds=20), print))

    assert all(line.value > 0 for line in lines)


def test_the_short_way_is_compared_with_its_peers():
    pytest.importorskip("orjson")
    pytest.importorskip("tradingview_scraper")
    from lakehouse_pipeline_tests.benchmarks import ingest

    assert all(line.value > 0 for line in ingest.decoding(print))
