"""The real definitions over a real lake in a folder of its own, and an instance in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import Settings, load_settings
from lakehouse_pipeline_tests.scripted import Script

# What Dagster itself does that pydantic or Dagster has deprecated.
DAGSTERS_OWN_WARNINGS = ("ignore:The `__fields__` attribute is deprecated:DeprecationWarning",)
EXCHANGES = "exchanges: {BINANCE: {symbols: [BTCUSDT]}, OKX: {symbols: [BTCUSDT]}}"
START = datetime(2026, 1, 5, 10, tzinfo=UTC)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            for warning in DAGSTERS_OWN_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def _no_instance_of_another_test() -> Iterator[None]:
    """Dagster remembers the instance opened last; where two overlapped, a dead one stays."""
    from dagster._core.storage.defs_state.base import set_defs_state_storage

    with set_defs_state_storage(None):
        yield


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings as a run reads them: from the environment and the YAML file it names."""
    config = tmp_path / "exchanges.yaml"
    config.write_text(EXCHANGES, encoding="utf-8")
    monkeypatch.setenv("LAKEHOUSE_CONFIG", str(config))
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    return load_settings()


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lakehouse]:
    with Lakehouse.open(settings) as lake:
        yield lake


@pytest.fixture
def defs(settings: Settings) -> dg.Definitions:
    from lakehouse_pipeline.definitions import build_definitions

    checks_alone = dg.define_asset_job(
        "check_minutes", dg.AssetSelection.checks_for_assets(["market", "bars_1m"])
    )
    of_days = dg.define_asset_job(
        "check_days", dg.AssetSelection.checks_for_assets(["market", "gaps"])
    )
    alone = dg.Definitions(jobs=[checks_alone, of_days])
    return dg.Definitions.merge(build_definitions(settings), alone)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def run(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> Callable[..., dg.ExecuteInProcessResult]:
    """``run("build_today", tags=…)``: a whole job in this process."""

    def execute(job: str, **options: object) -> dg.ExecuteInProcessResult:
        with warnings.catch_warnings():
            # Dagster's own partition loader asks for what Dagster has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            return defs.resolve_job_def(job).execute_in_process(
                instance=instance, raise_on_error=False, **options
            )

    return execute


@pytest.fixture
def recorded(lake: Lakehouse) -> Callable[..., Script]:
    """``recorded(minutes=3)``: a symbol of BINANCE that trades each second, landed."""

    def land(*, start: datetime = START, minutes: int = 3, writer: str = "writer-1") -> Script:
        until = minutes * 60
        script = Script(start=start, writer=writer).session("s1", alive=(0, until + 6))
        script.snapshot(0.5, last_price=99.0, cumulative_volume=1000.0, trade=-60)
        for second in range(1, until + 1):
            script.trade(second + 0.3, 100.0 + second % 7, 1000.0 + second)
        lake.append("raw.quotes", script.quotes)
        lake.append("raw.coverage", script.coverage)
        return script

    return land
