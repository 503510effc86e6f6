"""What Dagster loads, by name: a change of keys, groups, jobs or schedules shows in review."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lakehouse_pipeline.settings import Settings

pytestmark = pytest.mark.filterwarnings(  # Dagster's own calls
    "ignore:The `__fields__` attribute is deprecated:DeprecationWarning",
    "ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning",
)
EXCHANGES = {name: {"symbols": ["BTCUSDT"]} for name in ("BINANCE", "OKX")}


@pytest.fixture
def defs(tmp_path, monkeypatch) -> dg.Definitions:
    monkeypatch.chdir(tmp_path)  # no exchanges.yaml, no .env
    from lakehouse_pipeline.definitions import build_definitions

    return build_definitions(Settings(exchanges=EXCHANGES))


def test_definitions_are_loadable(defs):
    dg.Definitions.validate_loadable(defs)


def test_the_code_server_can_tell_the_others_of_them(defs):
    """Loadable is not enough: an enum in metadata loads here and cannot be sent."""
    from dagster._core.remote_representation.external_data import RepositorySnap

    told = dg.serialize_value(RepositorySnap.from_def(defs.get_repository_def()))

    assert '"bars_1m"' in told


def test_the_deployment_is_as_reviewed(defs, snapshot):
    assert describe(defs) == snapshot


def test_every_table_is_an_asset_whose_columns_are_described(defs):
    from lakehouse_pipeline.defs.assets.catalogue import group
    from lakehouse_pipeline.lake.tables import TABLES

    graph = defs.resolve_asset_graph()
    nodes = {".".join(key.path): graph.get(key) for key in graph.get_all_asset_keys()}
    tables = {name: TABLES[name] for name in nodes if name in TABLES}

    assert tables.keys() == TABLES.keys()
    for name, spec in tables.items():
        shown = nodes[name].metadata["dagster/column_schema"].columns
        assert [(column.name, column.description) for column in shown] == [
            (column, doc) for column, _, doc in spec.columns
        ]
        assert nodes[name].metadata["dagster/table_name"] == name
        assert nodes[name].description
        assert nodes[name].owners
        assert nodes[name].group_name == group(name)


def describe(defs: dg.Definitions) -> dict[str, object]:
    graph = defs.resolve_asset_graph()
    return {
        "assets": {
            "/".join(key.path): {
                "group": graph.get(key).group_name,
                "deps": sorted("/".join(parent.path) for parent in graph.get(key).parent_keys),
                "external": graph.get(key).is_external,
            }
            for key in sorted(graph.get_all_asset_keys())
        },
        "checks": sorted(
            f"{'/'.join(key.asset_key.path)}: {key.name}" for key in graph.asset_check_keys
        ),
        "jobs": {
            job.name: sorted(node.name for node in job.graph.nodes)
            for job in sorted(defs.resolve_all_job_defs(), key=lambda job: job.name)
            if not job.name.startswith("__")
        },
        "schedules": {schedule.name: schedule.cron_schedule for schedule in defs.schedules},
        "sensors": sorted(sensor.name for sensor in defs.sensors),
    }


def test_loading_needs_no_settings_lake_or_network_and_nothing_slow(tmp_path: Path):
    code = (
        "import sys, lakehouse_pipeline.definitions\n"
        f"print([name for name in {('polars', 'pyiceberg', 'pyarrow', 'websockets', 'structlog')!r}"
        " if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert loaded.stdout.strip() == "[]"
    assert not list(tmp_path.iterdir())
