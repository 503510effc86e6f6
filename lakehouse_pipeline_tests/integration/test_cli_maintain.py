"""``lakehouse maintain`` as a user has it: what it says, what it does, what it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lakehouse_pipeline.cli import app
from lakehouse_pipeline.errors import StateDirectoryError, UsageError
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.market.windows import HOUR
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


@pytest.fixture
def worn(lake: Lakehouse, maintain: Callable[..., Result]) -> Path:
    """The folder of a table with three old data files that nothing refers to."""
    from lakehouse_pipeline.lake.maintenance import expire

    maintain("seal", QUOTES)
    expire(lake, QUOTES, keep=1)
    folder = Path(lake.load(QUOTES).location())
    for path in folder.rglob("*.parquet"):
        os.utime(path, (0, 0))
    return folder


def data_files(folder: Path) -> int:
    return len(list(folder.rglob("*.parquet")))


def test_cleaning_deletes_only_when_told(worn: Path, maintain: Callable[..., Result]) -> None:
    told = maintain("clean", QUOTES, "--alone")
    left = data_files(worn)
    deleted = maintain("clean", QUOTES, "--alone", "--delete")

    files = len(told.stdout.splitlines()) - 1
    assert told.stdout.splitlines()[-1].startswith(f"raw.quotes: {files} files")
    assert left == 4
    assert deleted.stdout.startswith(f"raw.quotes: {files} files")
    assert data_files(worn) == 1


def test_cleaning_beside_others_first_says_what_waits(
    worn: Path, maintain: Callable[..., Result]
) -> None:
    expected = "raw.quotes: 0 files, 0 bytes deleted; 3 wait for their guard time\n"

    assert maintain("clean", QUOTES, "--delete").stdout == expected
    assert maintain("clean", QUOTES, "--delete", "--guard", "1h").stdout == expected
    assert data_files(worn) == 4


@pytest.mark.usefixtures("lake")
def test_a_guard_time_too_short_is_refused(maintain: Callable[..., Result]) -> None:
    result = maintain("clean", QUOTES, "--guard", "59m")

    assert isinstance(result.exception, UsageError)
    assert "--alone" in result.exception.mend


def test_accepting_says_how_much_it_is(worn: Path, maintain: Callable[..., Result]) -> None:
    would = maintain("accept", QUOTES, "--dry-run").stdout
    done = maintain("accept", QUOTES).stdout

    assert re.fullmatch(r"raw.quotes: \d+ files, \d+ bytes are accepted as of no use\n", done)
    assert would == done.replace(" are ", " would be ")
    assert data_files(worn) == 4


@pytest.mark.parametrize("verb", ["seal", "compact"])
def test_a_damaged_file_is_named_and_others_go_on(
    lake: Lakehouse, maintain: Callable[..., Result], verb: str
) -> None:
    if verb == "compact":
        for hour in range(3):
            maintain("seal", QUOTES)
            script = Script(start=START + (hour + 1) * HOUR, writer=f"later{hour}")
            script.snapshot(0, last_price=1.0, cumulative_volume=1.0)
            lake.append(QUOTES, script.quotes)
        maintain("seal", QUOTES)
    files = lake.files(QUOTES)
    Path(files["path"][0]).unlink()

    result = maintain(verb, QUOTES)

    assert result.exit_code == 1
    said = result.stdout.splitlines()[-1]
    assert said.startswith(f"raw.quotes: {files.height - 1} files became 1, ")
    assert "left for later: 1 files" in said
    assert f"damaged and left out: {files['path'][0]}\n" in result.stderr


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
