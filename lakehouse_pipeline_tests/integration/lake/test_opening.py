from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from pyiceberg.schema import Schema

from lakehouse_pipeline.errors import (
    CatalogTooNew,
    CatalogUnreachable,
    StateDirectoryError,
    UsageError,
)
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.catalog import open_catalog
from lakehouse_pipeline.lake.metadata import set_properties
from lakehouse_pipeline.lake.tables import BARS_1M, TABLES
from lakehouse_pipeline.settings import LakeSettings, Settings

OPEN = """
import sys
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.settings import Settings
sys.stdin.read()  # all start at once, when the test closes the pipe
with Lakehouse.open(Settings(state_dir=sys.argv[1])) as lake:
    print(lake.head("market.symbols"))
"""


def test_a_new_lake_has_every_table_empty(lake: Lakehouse) -> None:
    counts = {name: lake.scan(name).collect().height for name in TABLES}

    assert counts == dict.fromkeys(TABLES, 0)


def test_opening_again_changes_nothing(lake: Lakehouse, settings: Settings) -> None:
    before = {name: lake.load(name).metadata_location for name in TABLES}

    with Lakehouse.open(settings) as again:
        after = {name: again.load(name).metadata_location for name in TABLES}

    assert before == after


def test_processes_may_open_an_empty_folder_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(tmp_path / "state")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outcomes = [process.communicate() for process in processes]

    assert [out for out, _ in outcomes] == ["0\n"] * 3, [error for _, error in outcomes]
    with Lakehouse.open(Settings(state_dir=tmp_path / "state")) as lake:
        assert [len(lake.load(name).specs()) for name in TABLES] == [
            len(spec.specs) for spec in TABLES.values()
        ]


def test_a_table_written_by_a_newer_version_is_refused(lake: Lakehouse, settings: Settings) -> None:
    set_properties(lake.load("raw.quotes"), {"lakehouse.schema-version": "999"})

    with pytest.raises(CatalogTooNew, match=r"raw\.quotes has schema version 999.*Upgrade"):
        Lakehouse.open(settings)


def test_an_older_table_gains_the_columns_and_spec_it_lacks(
    settings: Settings, bars: Callable[..., pl.DataFrame]
) -> None:
    catalog = open_catalog(settings)
    catalog.create_namespace("market")
    older = Schema(*(field for field in BARS_1M.schema.fields if field.name != "flags"))
    catalog.create_table(
        "market.bars_1m",
        schema=older,
        partition_spec=BARS_1M.specs[0],
        properties={"lakehouse.schema-version": "0"},
    )
    old_rows = bars(minutes=2).drop("flags")
    catalog.load_table("market.bars_1m").append(old_rows.to_arrow().cast(older.as_arrow()))
    catalog.close()

    with Lakehouse.open(settings) as lake:
        lake.append("market.bars_1m", bars(minutes=3))
        rows = lake.scan("market.bars_1m").collect()

    assert rows.columns == list(BARS_1M.frame)
    assert rows["flags"].null_count() == 4
    assert rows["flags"].drop_nulls().sort().to_list() == [0, 0, 1, 1, 2, 2]


def test_a_state_folder_that_is_a_file_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(StateDirectoryError, match=r"state.*LAKEHOUSE_STATE_DIR"):
        Lakehouse.open(Settings(state_dir=tmp_path / "state"))


def test_a_state_folder_below_a_file_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StateDirectoryError, match="LAKEHOUSE_STATE_DIR"):
        Lakehouse.open(Settings(state_dir=tmp_path / "file" / "state"))


def test_a_damaged_catalog_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_text("this is not a database, and long enough to tell")

    with pytest.raises(CatalogUnreachable) as raised:
        Lakehouse.open(Settings(state_dir=tmp_path))

    assert "\n" not in str(raised.value)


def test_a_catalog_server_that_is_down_is_one_line(tmp_path: Path) -> None:
    nowhere = LakeSettings(catalog_type="rest", catalog_uri="http://127.0.0.1:1")

    with pytest.raises(CatalogUnreachable, match="LAKEHOUSE_LAKE__CATALOG_URI") as raised:
        Lakehouse.open(Settings(state_dir=tmp_path, lake=nowhere))

    assert "\n" not in str(raised.value)


def test_an_unknown_table_is_named_with_those_known(lake: Lakehouse) -> None:
    with pytest.raises(UsageError, match=r"no table 'raw.quots'.*raw\.quotes"):
        lake.scan("raw.quots")


def test_names_of_folders_may_hold_anything(
    tmp_path: Path, bars: Callable[..., pl.DataFrame]
) -> None:
    folder = tmp_path / "a #b?c %20 [d]*é"
    with Lakehouse.open(Settings(state_dir=folder)) as lake:
        lake.append("market.bars_1m", bars(minutes=2))

        assert lake.scan("market.bars_1m").collect().height == 4
    assert {path.name for path in folder.iterdir()} >= {"catalog.db", "warehouse"}
    assert list(tmp_path.iterdir()) == [folder]
