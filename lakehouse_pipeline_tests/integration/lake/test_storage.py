from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.errors import StateDirectoryError, TableDamaged
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.storage import DurableFileIO
from lakehouse_pipeline.settings import Settings

Frames = Callable[..., pl.DataFrame]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files and folders that were synced, as they are."""
    seen: set[str] = set()
    fsync = os.fsync

    def recording(handle: int) -> None:
        seen.add(Path(f"/proc/self/fd/{handle}").readlink().as_posix())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names open files by /proc")
def test_every_file_of_a_commit_is_on_the_disk(
    lake: Lakehouse, bars: Frames, synced: set[str]
) -> None:
    folder = Path(lake.load("market.bars_1m").location())
    before = set(folder.rglob("*"))

    lake.append("market.bars_1m", bars())

    made = {path.as_posix() for path in set(folder.rglob("*")) - before}
    files = {path for path in made if Path(path).is_file()}
    assert sorted(Path(path).suffix for path in files) == [".avro", ".avro", ".json", ".parquet"]
    assert files <= synced
    assert {Path(path).parent.as_posix() for path in made} <= synced


def test_storage_that_cannot_be_written_is_named_with_the_mend(
    lake: Lakehouse, bars: Frames
) -> None:
    (Path(lake.load("market.bars_1m").location()) / "data").write_text("in the way")

    with pytest.raises(StateDirectoryError, match=r"appending to market\.bars_1m.*LAKEHOUSE"):
        lake.append("market.bars_1m", bars())

    assert lake.head("market.bars_1m") == 0


def test_a_lost_metadata_file_is_told_from_a_lost_catalog(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    lake.append("market.bars_1m", bars())
    Path(lake.load("market.bars_1m").metadata_location).unlink()

    with (
        Lakehouse.inspect(settings) as other,
        pytest.raises(TableDamaged, match=r"loading market\.bars_1m") as raised,
    ):
        other.scan("market.bars_1m")

    assert "\n" not in str(raised.value)


def test_a_folder_that_a_cleaner_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync, removed = tmp_path / "symbol=A" / "day=1", os.fsync, []

    def overtaken(handle: int) -> None:
        fsync(handle)
        if folder.exists() and not removed:  # just made, and still empty
            folder.rmdir()
            folder.parent.rmdir()
            removed.append(folder)

    monkeypatch.setattr(os, "fsync", overtaken)

    with DurableFileIO().new_output(str(folder / "a.parquet")).create() as stream:
        stream.write(b"rows")

    assert removed
    assert (folder / "a.parquet").read_bytes() == b"rows"
