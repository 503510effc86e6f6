from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from lakehouse_pipeline.errors import TableDamaged
from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import (
    GUARD,
    NO_GUARD,
    accept_catalog,
    apply_cleaning,
    plan_cleaning,
)
from lakehouse_pipeline.lake.health import examine
from lakehouse_pipeline.lake.maintenance import expire, seal, tag_day
from lakehouse_pipeline.lake.metadata import set_properties
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow
from lakehouse_pipeline.settings import Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
TABLE = "market.bars_1m"
Frames = Callable[..., pl.DataFrame]


@pytest.fixture
def folder(lake: Lakehouse, bars: Frames) -> Path:
    """The folder of a table with two snapshots."""
    for minute in range(2):
        lake.append(TABLE, bars(TEN + minute * MINUTE))
    return Path(lake.load(TABLE).location())


def findings(settings: Settings) -> list[str]:
    with Lakehouse.inspect(settings) as lake:
        return [str(finding) for finding in examine(lake)]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("folder")
def test_a_sound_lake_has_no_findings(lake: Lakehouse, settings: Settings) -> None:
    seal(lake, TABLE, before=TEN + DAY)
    expire(lake, TABLE, keep=1)

    assert findings(settings) == []


@pytest.mark.usefixtures("folder")
def test_files_committed_while_a_lake_is_looked_at_are_not_missing(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    class BusyLake(Lakehouse):
        """One that a writer commits to between two looks."""

        def load(self, table: str) -> Table:
            if table == TABLE:
                lake.append(TABLE, bars(TEN + HOUR))
            return super().load(table)

    with BusyLake.inspect(settings) as busy:
        assert examine(busy) == []


def test_a_missing_data_file_is_named_with_its_days_to_rebuild(
    lake: Lakehouse, settings: Settings, folder: Path
) -> None:
    seal(lake, TABLE, before=TEN + DAY)
    lost = Path(lake.files(TABLE)["path"][0])
    lost.unlink()
    before = contents(folder)

    (finding,) = findings(settings)

    assert f"2 rows are in files that are missing: {lost}." in finding
    assert "--exchange BINANCE --from 2026-01-31 --to 2026-01-31" in finding
    assert contents(folder) == before


@pytest.mark.usefixtures("folder")
def test_a_day_with_a_missing_file_can_be_rebuilt_as_advised(
    lake: Lakehouse, settings: Settings, bars: Frames
) -> None:
    seal(lake, TABLE, before=TEN + DAY)
    Path(lake.files(TABLE)["path"][0]).unlink()
    day = Slice("BINANCE", TimeWindow.of_day(TEN.date()))

    lake.overwrite(TABLE, bars(minutes=2), slice=day)

    expire(lake, TABLE, keep=1)
    assert findings(settings) == []
    assert_frame_equal(lake.scan(TABLE).collect(), bars(minutes=2), check_row_order=False)


def test_a_data_file_cut_short_is_named(lake: Lakehouse, settings: Settings, folder: Path) -> None:
    cut = Path(lake.files(TABLE)["path"][0])
    cut.write_bytes(cut.read_bytes()[:100])
    before = contents(folder)

    (finding,) = findings(settings)

    assert str(cut) in finding
    assert "of another size than was written" in finding
    assert contents(folder) == before


def test_raw_rows_that_are_gone_are_said_to_be_nowhere_else(
    lake: Lakehouse, settings: Settings, quotes: Frames
) -> None:
    lake.append("raw.quotes", quotes())
    Path(lake.files("raw.quotes")["path"][0]).unlink()

    (finding,) = findings(settings)

    assert "nowhere else" in finding


@pytest.mark.parametrize("left", [0, 100])
@pytest.mark.parametrize("kind", ["*.metadata.json", "snap-*.avro", "*-m0.avro"])
def test_truncated_metadata_is_named_with_the_mend(
    settings: Settings, folder: Path, kind: str, left: int
) -> None:
    damaged = max((folder / "metadata").glob(kind), key=lambda path: path.stat().st_mtime_ns)
    damaged.write_bytes(damaged.read_bytes()[:left])
    before = contents(folder)

    (finding,) = findings(settings)

    assert finding.startswith("market.bars_1m: ")
    assert str(damaged) in finding
    assert "Restore" in finding
    assert contents(folder) == before


def test_a_missing_metadata_file_is_named(settings: Settings, folder: Path) -> None:
    lost = max((folder / "metadata").glob("*.metadata.json"))
    lost.unlink()

    (finding,) = findings(settings)

    assert finding.count(str(lost)) == 2
    assert "\n" not in finding


def test_a_file_only_a_tag_needs_is_no_damage_of_now(
    lake: Lakehouse, settings: Settings, folder: Path
) -> None:
    tag_day(lake, TABLE, TEN.date())
    hot = list((folder / "data").rglob("*.parquet"))
    seal(lake, TABLE, before=TEN + DAY)
    hot[0].unlink()

    (finding,) = findings(settings)

    assert "older snapshots" in finding
    assert "table of now is whole" in finding


def test_foreign_files_are_named_and_never_cleaned(
    lake: Lakehouse, settings: Settings, folder: Path
) -> None:
    notes = folder / "data" / "notes.txt"
    copied = folder / "data" / "copy of bars.parquet"
    notes.write_text("mine")
    copied.write_bytes(b"PAR1")

    (finding,) = findings(settings)

    assert str(notes) in finding
    assert str(copied) in finding
    assert plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD).files == ()


def test_nothing_is_cleaned_where_the_catalog_was_made_anew(
    lake: Lakehouse, settings: Settings, folder: Path
) -> None:
    lake.close()
    (settings.state_dir / "catalog.db").unlink()
    before = contents(folder).keys()

    with Lakehouse.open(settings) as anew:
        with pytest.raises(TableDamaged, match=r"of another table.*Nothing is deleted"):
            plan_cleaning(anew, TABLE, now=NEVER, guard=NO_GUARD)
        assert before <= contents(folder).keys()
    assert any("of another table" in finding for finding in findings(settings))


@pytest.fixture
def restored(
    lake: Lakehouse, settings: Settings, folder: Path, bars: Frames
) -> Iterator[Lakehouse]:
    """A lake whose catalog was set back by three commits: what they added, it does not know."""
    assert folder.exists()
    lake.close()
    backup = settings.state_dir.with_name("backup")
    shutil.copytree(settings.state_dir, backup)
    with Lakehouse.open(settings) as later:
        for minute in range(5, 8):
            later.append(TABLE, bars(TEN + minute * MINUTE))
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (settings.state_dir / name).unlink(missing_ok=True)
        if (backup / name).exists():
            shutil.copy(backup / name, settings.state_dir / name)
    with Lakehouse.open(settings) as set_back:
        yield set_back


def lost_rows(folder: Path, lake: Lakehouse) -> int:
    """Return how many data files are there beside those the catalog knows."""
    return len(list(folder.rglob("*.parquet"))) - lake.files(TABLE).height


def test_nothing_is_cleaned_where_an_old_catalog_was_restored(
    restored: Lakehouse, settings: Settings, folder: Path
) -> None:
    with pytest.raises(TableDamaged, match=r"newer than what the catalog knows"):
        plan_cleaning(restored, TABLE, now=NEVER, guard=NO_GUARD)

    assert any("newer than" in finding for finding in findings(settings))
    assert lost_rows(folder, restored) == 3


@pytest.mark.parametrize("commits", [3, 12])
def test_new_commits_do_not_end_the_doubt_about_a_restored_catalog(
    restored: Lakehouse, settings: Settings, folder: Path, bars: Frames, commits: int
) -> None:
    for minute in range(commits):
        restored.append(TABLE, bars(TEN + DAY + minute * MINUTE))

    with pytest.raises(TableDamaged, match=r"was current once.*maintain accept market\.bars_1m"):
        plan_cleaning(restored, TABLE, now=NEVER, guard=NO_GUARD)

    assert any("was current once" in finding for finding in findings(settings))
    assert lost_rows(folder, restored) == 3


def test_nor_do_so_many_that_the_log_forgets_the_restoring(
    restored: Lakehouse, settings: Settings, folder: Path
) -> None:
    table = restored.load(TABLE)
    for number in range(70):  # the log holds 60
        set_properties(table, {"touched": str(number)})
    found = apply_cleaning(restored, plan_cleaning(restored, TABLE, now=NEVER - GUARD))

    with pytest.raises(TableDamaged, match="was current once"):
        plan_cleaning(restored, TABLE, now=NEVER)

    assert found.files == 0
    assert any("was current once" in finding for finding in findings(settings))
    assert lost_rows(folder, restored) == 3


def test_a_person_may_accept_a_restored_catalog(
    restored: Lakehouse, settings: Settings, folder: Path, bars: Frames
) -> None:
    restored.append(TABLE, bars(TEN + DAY))

    files = accept_catalog(restored, TABLE)

    assert sum(file.path.endswith(".parquet") for file in files) == 3
    assert findings(settings) == []
    apply_cleaning(restored, plan_cleaning(restored, TABLE, now=NEVER - GUARD))
    assert lost_rows(folder, restored) == 3
    apply_cleaning(restored, plan_cleaning(restored, TABLE, now=NEVER))
    assert lost_rows(folder, restored) == 0
    assert findings(settings) == []


def test_a_commit_that_was_killed_raises_no_doubt(
    lake: Lakehouse, settings: Settings, folder: Path, bars: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = SqlCatalog._write_metadata

    def killed(**written: object) -> None:
        write(**written)
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as dying:
            dying.setattr(SqlCatalog, "_write_metadata", staticmethod(killed))
            with pytest.raises(KeyboardInterrupt):
                lake.append(TABLE, bars(TEN + 9 * MINUTE))
        lake.append(TABLE, bars(TEN + 9 * MINUTE))

    assert folder.exists()
    assert findings(settings) == []
