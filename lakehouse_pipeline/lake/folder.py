"""The files in a table's folder, by what their names say: ours, or somebody else's.

Names are all there is to tell an orphan of ours, which may go one day, from a file that a person
or another program put there, which never goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pyarrow.fs import FileInfo, FileSelector, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
OURS = re.compile(
    rf"data/(?:.+/)?{_UUID}\.parquet"
    rf"|metadata/(?P<version>\d{{5,}})-{_UUID}\.metadata\.json"
    rf"|metadata/snap-\d+-\d+-{_UUID}\.avro"
    rf"|metadata/{_UUID}-m\d+\.avro"
)
CONDEMNED = "metadata/condemned.json"  # the cleaner's own notes


@dataclass(frozen=True, slots=True)
class StoredFile:
    path: str
    bytes: int
    modified: datetime


def list_files(table: Table) -> list[StoredFile]:
    """Return every file below the table's location, at any depth, but the cleaner's notes."""
    location = table.location().rstrip("/")
    return [
        StoredFile(location + path, info.size, info.mtime)
        for path, info in _listed(table, location, recursive=True)
        if path != f"/{CONDEMNED}"
    ]


def has_notes(table: Table) -> bool:
    """Tell whether the cleaner's own notes are there."""
    folder, _, name = f"{table.location().rstrip('/')}/{CONDEMNED}".rpartition("/")
    return any(path == f"/{name}" for path, _ in _listed(table, folder, recursive=False))


def _listed(table: Table, folder: str, *, recursive: bool) -> Iterator[tuple[str, FileInfo]]:
    """Yield the files in *folder* by their paths below it, with a leading slash."""
    io = table.io
    assert isinstance(io, PyArrowFileIO), "the catalog is opened with it"
    scheme, netloc, root = io.parse_location(folder)
    selector = FileSelector(root, recursive=recursive, allow_not_found=True)
    for info in io.fs_by_scheme(scheme, netloc).get_file_info(selector):
        if info.type == FileType.File:
            yield info.path[len(root) :], info


def is_ours(table: Table, path: str) -> bool:
    """Tell whether *path*, below the table's location, is named as this project names files."""
    return OURS.fullmatch(path.removeprefix(table.location().rstrip("/") + "/")) is not None


def version(location: str) -> int | None:
    """Return the number that a metadata file of ours counts up with each commit."""
    match = OURS.fullmatch("metadata/" + location.rpartition("/")[2])
    return int(match["version"]) if match and match["version"] else None
