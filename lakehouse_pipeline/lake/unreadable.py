"""Which data files cannot be read: missing, cut short or overwritten.

Asked only after reading many at once has failed, which does not say of which file.
"""

from __future__ import annotations

from collections.abc import Sequence

from polars.exceptions import PolarsError
from pyiceberg.io import FileIO

from .files import scan_files
from .lakehouse import Lakehouse
from .manifests import DataFileInfo
from .tables import TABLES

READING_FAILED = (FileNotFoundError, PolarsError)


def unreadable_files(
    lake: Lakehouse, table: str, files: Sequence[DataFileInfo]
) -> list[DataFileInfo]:
    """Return those of *files* that are damaged.

    Raises:
        OSError: storage does not answer, which says nothing of the files.
    """
    io = lake.load(table).io
    return [file for file in files if not _is_readable(lake, table, io, file)]


def _is_readable(lake: Lakehouse, table: str, io: FileIO, file: DataFileInfo) -> bool:
    try:
        # Through the library first: polars calls a storage that is down and a broken file the same.
        if len(io.new_input(file.path)) != file.bytes:
            return False
        scan_files([file.path], TABLES[table], storage=lake.storage).collect()
    except READING_FAILED:
        return False
    return True
