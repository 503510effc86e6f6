"""The files in a table's folder, by what their names say: ours, or somebody else's.

Names are all there is to tell an orphan of ours, which may go one day, from a file that a person
or another program put there, which never goes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from pyarrow.fs import FileSelector, FileType
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
    io, location = table.io, table.location().rstrip("/")
    assert isinstance(io, PyArrowFileIO), "the catalog is opened with it"
    scheme, netloc, root = io.parse_location(location)
    selector = FileSelector(root, recursive=True, allow_not_found=True)
    return [
        StoredFile(location + info.path[len(root) :], info.size, info.mtime)
        for info in io.fs_by_scheme(scheme, netloc).get_file_info(selector)
        if info.type == FileType.File and info.path != f"{root}/{CONDEMNED}"
    ]


def is_ours(table: Table, path: str) -> bool:
    """Tell whether *path*, below the table's location, is named as this project names files."""
    return OURS.fullmatch(path.removeprefix(table.location().rstrip("/") + "/")) is not None


def version(location: str) -> int | None:
    """Return the number that a metadata file of ours counts up with each commit."""
    match = OURS.fullmatch("metadata/" + location.rpartition("/")[2])
    return int(match["version"]) if match and match["version"] else None
