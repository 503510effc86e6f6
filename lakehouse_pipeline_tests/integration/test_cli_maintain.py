"""``lakehouse maintain`` as a user has it: what it says, what it does, what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lakehouse_pipeline.cli import app
from lakehouse_pipeline.errors import StateDirectoryError, UsageError
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.scripted import Script

START = datetime(2026, 1, 5, 10, tzinfo=UTC)
QUOTES = "raw.quotes"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def lake(folder: Path) -> Lakehouse:
    """Three commits of quotes that no bars wait for."""
    lake = Lakehouse.open(Settings(state_dir=folder))
    for number in range(3):
        script = Script(start=START, writer=f"w{number}")
        script.snapshot(number, last_price=1.0, cumulative_volume=1.0)
        lake.append(QUOTES, script.quotes)
    return lake


@pytest.fixture
def maintain() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(app, ["maintain", *arguments])


def test_sealing_says_what_it_did(lake: Lakehouse, maintain: Callable[..., Result]) -> None:
    result = maintain("seal", QUOTES)

    assert result.stdout == "raw.quotes: 3 files became 1, 3 rows moved\n"
    assert lake.files(QUOTES)["spec"].to_list() == ["sealed"]


@pytest.mark.parametrize("verb", ["seal", "compact", "expire", "clean"])
def test_a_dry_run_changes_nothing(
    lake: Lakehouse, maintain: Callable[..., Result], verb: str
) -> None:
    before = lake.load(QUOTES).metadata_location

    result = maintain(verb, "--dry-run")

    assert result.exit_code == 0
    assert result.stdout.count("\n") == 12
    assert lake.load(QUOTES).metadata_location == before


def test_a_dry_run_says_what_there_is_to_do(
    lake: Lakehouse, maintain: Callable[..., Result]
) -> None:
    size = lake.files(QUOTES)["bytes"].sum()

    assert maintain("seal", QUOTES, "--dry-run").stdout == (
        f"raw.quotes: 3 files, {size} bytes to rewrite\n"
    )


def test_cleaning_deletes_only_when_told(lake: Lakehouse, maintain: Callable[..., Result]) -> None:
    from lakehouse_pipeline.lake.maintenance import expire

    maintain("seal", QUOTES)
    expire(lake, QUOTES, keep=1)
    table = Path(lake.load(QUOTES).location())
    for path in table.rglob("*.parquet"):
        os.utime(path, (0, 0))

    told = maintain("clean", QUOTES)
    left = len(list(table.rglob("*.parquet")))
    deleted = maintain("clean", QUOTES, "--delete")

    assert told.stdout.splitlines()[-1].startswith("raw.quotes: 3 files")
    assert left == 4
    assert deleted.stdout.startswith("raw.quotes: 3 files")
    assert len(list(table.rglob("*.parquet"))) == 1


def test_an_hour_that_is_not_closed_stays(lake: Lakehouse, maintain: Callable[..., Result]) -> None:
    maintain("seal", QUOTES, "--before", "2026-01-05T10:30:00Z")

    assert set(lake.files(QUOTES)["spec"]) == {"hot"}


@pytest.mark.usefixtures("lake")
def test_expiring_says_how_many(maintain: Callable[..., Result]) -> None:
    assert maintain("expire", QUOTES).stdout == "raw.quotes: 0 snapshots forgotten\n"


@pytest.mark.usefixtures("lake")
def test_an_unknown_table_is_a_usage_error(maintain: Callable[..., Result]) -> None:
    result = maintain("seal", "raw.quots")

    assert isinstance(result.exception, UsageError)


@pytest.mark.usefixtures("folder")
def test_no_lake_is_made_to_be_maintained(maintain: Callable[..., Result]) -> None:
    assert isinstance(maintain("seal").exception, StateDirectoryError)
