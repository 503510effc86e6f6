"""Maintenance as assets: what a run of all tables does, says and proves."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from lakehouse_pipeline.defs.assets.maintenance import TABLES
from lakehouse_pipeline.defs.jobs import TICK_CONFIG
from lakehouse_pipeline.defs.partitions import RANGE_END, RANGE_START, range_tags
from lakehouse_pipeline.lake import tables
from lakehouse_pipeline.lake.condemned import read_condemned, write_condemned
from lakehouse_pipeline.lake.maintenance import expire
from lakehouse_pipeline.market.windows import MINUTE

from .conftest import START

TODAY = range_tags(START.date(), START.date(), ["BINANCE", "OKX"])
ALL = {RANGE_START: TABLES[0], RANGE_END: TABLES[-1]}
SEALED = dg.AssetKey(["maintenance", "sealed_files"])


@pytest.fixture
def ticked(recorded, lake, run):
    """Three commits of quotes, and the bars of two ticks."""
    for number in range(3):
        recorded(start=START + number * MINUTE, minutes=1, writer=f"writer-{number}")
        if number:
            assert run("build_today", tags=TODAY, run_config=TICK_CONFIG).success
    return lake


def rows(lake, table: str) -> pl.DataFrame:
    return lake.scan(table).collect().sort(pl.all())


def verdicts(result) -> dict[str, bool]:
    passed: dict[str, bool] = {}
    for check in result.get_asset_check_evaluations():
        passed[check.check_name] = check.passed and passed.get(check.check_name, True)
    return passed


def test_the_tables_named_are_the_lakes():
    assert sorted(TABLES) == sorted(tables.TABLES)


def test_sealing_changes_files_and_no_row(ticked, run):
    moving = ("raw.quotes", "market.bars_1s", "market.bars_1m")
    before = {table: rows(ticked, table) for table in moving}

    result = run("seal_and_compact", tags=ALL)

    assert result.success
    assert verdicts(result) == {"rows_are_identical": True, "small_files_are_few": True}
    for table in moving:
        assert rows(ticked, table).equals(before[table])
        files = ticked.files(table)
        assert set(files["spec"]) == {"sealed"}
        assert files["partition"].is_unique().all()


@pytest.mark.usefixtures("ticked")
def test_a_run_says_of_each_table_what_was_before_and_after(run, instance):
    run("seal_and_compact", tags=ALL)

    told = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=SEALED, asset_partitions=["raw.quotes"]), limit=1
    ).records[0]
    metadata = told.asset_materialization.metadata
    assert metadata["files_removed"].value == 3
    assert metadata["hot_files"].value == 0
    assert "| hot_files | 3 | 0 |" in metadata["before_and_after"].value
    assert metadata["file_sizes"].value.startswith("![files by size, before and after](data:image")


def told_of(result, table: str):
    """Return what the run's materialization of *table* says."""
    (event,) = [
        each.step_materialization_data.materialization
        for each in result.all_node_events
        if each.is_step_materialization and each.partition == table
    ]
    return event.metadata


def test_a_damaged_file_keeps_no_other_from_being_sealed(ticked, run):
    hot = ticked.files("raw.quotes").height
    lost = Path(ticked.files("raw.quotes")["path"][0])
    lost.unlink()

    result = run("seal_and_compact", tags=ALL)

    assert result.success
    assert verdicts(result) == {"rows_are_identical": True, "small_files_are_few": False}
    assert hot == 3
    assert ticked.files("raw.quotes").filter(spec="hot")["path"].to_list() == [str(lost)]
    told = told_of(result, "raw.quotes")
    assert (told["damaged_files"].value, told["backlog_files"].value) == (1, 1)
    assert str(lost) in told["left_out"].value
    assert told_of(result, "market.bars_1s")["damaged_files"].value == 0


def test_a_check_that_examined_nothing_says_so(ticked, run):
    earlier = {"config": {"before": (START - timedelta(days=1)).isoformat()}}

    result = run(
        "seal_and_compact",
        partition_key="raw.quotes",
        run_config={"ops": {"maintenance__sealed_files": earlier}},
    )
    again = run("seal_and_compact", partition_key="raw.quotes")

    idle, real = (
        next(
            each
            for each in done.get_asset_check_evaluations()
            if each.check_name == "rows_are_identical"
        )
        for done in (result, again)
    )
    assert idle.description.startswith("Nothing to examine: none of ")
    assert idle.metadata["rewrites_examined"].value == 0
    assert real.description is None
    assert real.metadata["rewrites_examined"].value == 1
    assert ticked.files("raw.quotes")["spec"].unique().to_list() == ["sealed"]


def test_one_table_can_be_maintained_alone(ticked, run):
    assert run("seal_and_compact", partition_key="market.bars_1s").success

    assert set(ticked.files("market.bars_1s")["spec"]) == {"sealed"}
    assert set(ticked.files("raw.quotes")["spec"]) == {"hot"}


@pytest.mark.usefixtures("ticked")
def test_a_rewrite_that_changed_a_row_fails_its_check(run, monkeypatch):
    from lakehouse_pipeline.lake import maintenance

    write = maintenance.write_files
    monkeypatch.setattr(
        maintenance,
        "write_files",
        lambda table, spec, frame, **more: write(
            table, spec, frame.with_columns(bid=pl.lit(0.5)), **more
        ),
    )
    monkeypatch.setattr(maintenance, "_check", lambda *_: None)

    result = run("seal_and_compact", partition_key="raw.quotes")

    assert verdicts(result)["rows_are_identical"] is False


def test_files_that_were_not_sealed_fail_their_check(recorded, run):
    recorded(minutes=1)
    run("build_today", tags=TODAY, run_config=TICK_CONFIG)
    earlier = {"config": {"before": (START - timedelta(days=1)).isoformat()}}

    result = run(
        "seal_and_compact",
        partition_key="raw.quotes",
        run_config={"ops": {"maintenance__sealed_files": earlier}},
    )

    assert verdicts(result)["small_files_are_few"] is False


def clean(run, **more):
    config = {"ops": {"maintenance__clean_folders": {"config": {"guard_hours": 1.0}}}}
    return run("clean_folders", run_config=config, **more)


def age(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (0, 0))


def let_the_guard_time_pass(lake, table: str) -> None:
    """Note what was found unreachable as found long ago."""
    loaded = lake.load(table)
    noted = read_condemned(loaded)
    write_condemned(loaded, replace(noted, since=dict.fromkeys(noted.since, START)))


def test_cleaning_deletes_what_nothing_refers_to(ticked, run):
    run("seal_and_compact", tags=ALL)
    expire(ticked, "raw.quotes", keep=1)
    before = rows(ticked, "raw.quotes")
    folder = Path(ticked.load("raw.quotes").location())
    age(folder)

    files = len(list(folder.rglob("*.parquet")))
    assert clean(run, tags=ALL).success
    assert len(list(folder.rglob("*.parquet"))) == files  # a reader may hold what was just found
    let_the_guard_time_pass(ticked, "raw.quotes")
    result = clean(run, tags=ALL)

    assert result.success
    assert verdicts(result) == {"no_orphans": True}
    assert len(list(folder.rglob("*.parquet"))) == ticked.files("raw.quotes").height
    assert rows(ticked, "raw.quotes").equals(before)


def test_what_should_have_gone_days_ago_fails_the_check(ticked, run):
    run("seal_and_compact", tags=ALL)
    expire(ticked, "raw.quotes", keep=1)
    age(Path(ticked.load("raw.quotes").location()))
    clean(run, partition_key="raw.quotes")
    let_the_guard_time_pass(ticked, "raw.quotes")
    week = {"ops": {"maintenance__clean_folders": {"config": {"guard_hours": 1e6}}}}

    result = run("clean_folders", partition_key="raw.quotes", run_config=week)

    assert verdicts(result) == {"no_orphans": False}


def test_foreign_files_fail_the_check_and_stay(ticked, run):
    notes = Path(ticked.load("raw.quotes").location()) / "notes.txt"
    notes.write_text("mine")

    result = clean(run, partition_key="raw.quotes")

    assert result.success
    assert verdicts(result) == {"no_orphans": False}
    assert notes.exists()


def test_a_damaged_table_does_not_keep_others_from_being_cleaned(ticked, run):
    run("seal_and_compact", tags=ALL)
    for table in ("raw.coverage", "raw.quotes", "market.bars_1s"):
        expire(ticked, table, keep=1)
        age(Path(ticked.load(table).location()))
    metadata = Path(ticked.load("raw.quotes").location()) / "metadata"
    lists = Path(ticked.load("raw.quotes").current_snapshot().manifest_list)
    lists.write_bytes(lists.read_bytes()[:50])
    manifests = len(list(metadata.iterdir()))

    assert not clean(run, tags=ALL).success
    let_the_guard_time_pass(ticked, "market.bars_1s")
    result = clean(run, tags=ALL)

    assert not result.success
    assert len(list(metadata.iterdir())) == manifests
    bars = Path(ticked.load("market.bars_1s").location())
    assert len(list(bars.rglob("*.parquet"))) == ticked.files("market.bars_1s").height
