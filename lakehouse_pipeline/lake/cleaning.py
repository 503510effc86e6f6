"""Deleting files that no snapshot refers to: plan, look at it, apply.

Such files are left by expired snapshots, by commits that lost, and by killed writers. A file that
a writer has made and not yet committed looks the same, so only files older than a guard time are
planned: longer than any commit with its retries takes, and longer than any reader holds a frame it
has not collected. A day is ample.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pyarrow.fs import FileSelector, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from .catalog import typed_errors
from .lakehouse import Lakehouse


@dataclass(frozen=True, slots=True)
class StoredFile:
    path: str
    bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """Files of *table* that nothing referred to when they were listed."""

    table: str
    files: tuple[StoredFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Cleaned:
    table: str
    files: int
    bytes: int


def plan_cleaning(lake: Lakehouse, table: str, *, older_than: datetime) -> CleaningPlan:
    """Return the files of *table* last modified before *older_than* that nothing refers to."""
    with typed_errors(f"listing the files of {table}"):
        # List first: what is committed after the listing cannot be in it unless it is reachable.
        stored = _list_files(lake.load(table))
        reachable = _reachable(lake, table)
    return CleaningPlan(
        table=table,
        files=tuple(
            file for file in stored if file.modified < older_than and file.path not in reachable
        ),
    )


def apply_cleaning(lake: Lakehouse, plan: CleaningPlan) -> Cleaned:
    """Delete what *plan* names and nothing refers to now; gone already is as good as deleted."""
    deleted = size = 0
    with typed_errors(f"cleaning {plan.table}"):
        io, reachable = lake.load(plan.table).io, _reachable(lake, plan.table)
        for file in plan.files:
            if file.path in reachable:
                continue
            try:
                io.delete(file.path)
            except FileNotFoundError:
                continue
            deleted, size = deleted + 1, size + file.bytes
            _remove_empty_folders(Path(file.path).parent)
    return Cleaned(table=plan.table, files=deleted, bytes=size)


def _remove_empty_folders(folder: Path) -> None:
    """Remove a partition's folder, and the one above, if nothing is left in them."""
    # On an object store there are no folders, and the path leads nowhere here.
    for each in (folder, folder.parent):
        with suppress(OSError):
            each.rmdir()


def _list_files(table: Table) -> list[StoredFile]:
    io, location = table.io, table.location().rstrip("/")
    assert isinstance(io, PyArrowFileIO), "the catalog is opened with it"
    scheme, netloc, root = io.parse_location(location)
    selector = FileSelector(root, recursive=True, allow_not_found=True)
    return [
        StoredFile(location + info.path[len(root) :], info.size, info.mtime)
        for info in io.fs_by_scheme(scheme, netloc).get_file_info(selector)
        if info.type == FileType.File
    ]


def _reachable(lake: Lakehouse, name: str) -> set[str]:
    """Return every file that the table's metadata leads to, expired metadata excepted."""
    table = lake.load(name)
    metadata = table.metadata
    reachable = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    reachable |= {statistics.statistics_path for statistics in metadata.statistics}
    for snapshot in metadata.snapshots:
        reachable.add(snapshot.manifest_list)
        reachable |= {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
        reachable |= {file.path for file in lake.plan(table, snapshot)}
    return reachable
