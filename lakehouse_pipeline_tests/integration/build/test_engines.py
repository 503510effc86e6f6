"""Every engine keeps the same contract, and builds the same rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build.day import build_exchange_day
from lakehouse_pipeline.engine import local
from lakehouse_pipeline.engine import ray as on_ray
from lakehouse_pipeline.errors import SettingsError, TableDamaged
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.benchmarks.exchange_day import EXCHANGE, coverage_of, quotes_of

FIRST = date(2026, 3, 2)
DAYS = [FIRST, FIRST + timedelta(days=1)]
EXCHANGES = [EXCHANGE, "OKX"]
BUILT = ("symbols", "bars_1s", "bars_1m", "gaps", "indicators_1m", "reconciliation")
HOUR = timedelta(hours=1)

ENGINES = pytest.mark.parametrize(
    "engine",
    [
        local,
        pytest.param(
            on_ray,
            marks=[
                pytest.mark.full,
                pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is missing"),
            ],
        ),
    ],
    ids=["local", "ray"],
)


def squared(number: int) -> int:
    if number == 13:
        raise TableDamaged("A file is gone.", mend="Restore it.")
    return number * number


@ENGINES
def test_results_come_in_the_order_of_the_partitions(engine: ModuleType) -> None:
    assert list(engine.map_partitions(squared, range(5))) == [0, 1, 4, 9, 16]


@ENGINES
def test_an_error_of_a_partition_surfaces_as_it_was_raised(engine: ModuleType) -> None:
    results = engine.map_partitions(squared, [2, 13])
    assert next(results) == 4
    with pytest.raises(TableDamaged, match=r"A file is gone\. Restore it\.") as caught:
        next(results)
    assert caught.value.mend == "Restore it."


def test_a_missing_ray_is_one_line_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="pip install"):
        next(on_ray.map_partitions(squared, [1]))


def built_by(
    map_partitions: Callable[..., Iterator[object]], state_dir: Path
) -> dict[str, pl.DataFrame]:
    """Record an hour of two days at two exchanges, build them all, return every built table."""
    settings = load_settings(state_dir=state_dir)
    with Lakehouse.open(settings) as lake:
        for exchange in EXCHANGES:
            for day in DAYS:
                start = TimeWindow.of_day(day).start
                window = TimeWindow(start, start + HOUR)
                for table, frame in (
                    ("raw.quotes", quotes_of(window, 2)),
                    ("raw.coverage", coverage_of(window, 2)),
                ):
                    name = pl.col("symbol").str.replace(EXCHANGE, exchange)
                    lake.append(table, frame.with_columns(name, exchange=pl.lit(exchange)))
    build = partial(build_exchange_day, settings=settings, studies=[])
    exchange_days = [(exchange, day) for exchange in EXCHANGES for day in DAYS]
    assert len(list(map_partitions(build, exchange_days))) == len(exchange_days)
    with Lakehouse.open(settings) as lake:
        return {name: lake.scan(f"market.{name}").collect() for name in BUILT}


@pytest.mark.full
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is missing")
def test_both_engines_build_the_same_rows(tmp_path: Path) -> None:
    import ray

    there = built_by(local.map_partitions, tmp_path / "local")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        here = built_by(on_ray.map_partitions, tmp_path / "ray")
    finally:
        ray.shutdown()
    for table in ("bars_1s", "bars_1m", "symbols"):
        assert there[table]["exchange"].unique().sort().to_list() == EXCHANGES
    for table in BUILT:
        assert_frame_equal(here[table], there[table], check_row_order=False, check_exact=True)
