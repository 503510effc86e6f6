"""Files that survive a power cut.

The catalog's pointer is durable once SQLite or a server says so; the files it leads to must be
durable before that, or a machine that loses power keeps a pointer to an empty file and the table
is lost with it. Object stores are durable as they answer; local files are synced here.

The catalog loads this class by its name in ``py-io-impl``.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any, cast

import stamina
from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO


class DurableFileIO(PyArrowFileIO):
    """The library's file access; what it writes locally is on the disk once closed."""

    def new_output(self, location: str) -> PyArrowFile:
        scheme, netloc, path = self.parse_location(location, self.properties)
        if scheme != "file":
            return super().new_output(location)
        return _DurableFile(location, path, self.fs_by_scheme(scheme, netloc))


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: FBT001, FBT002  # the library's signature
        raw = _open_in_folder(Path(self._path), "wb" if overwrite else "xb")
        # A buffered writer has all that the protocol asks for.
        return cast("OutputStream", _SyncedWriter(cast("Any", raw)))


class _SyncedWriter(io.BufferedWriter):
    def close(self) -> None:
        if not self.closed:
            self.flush()
            os.fsync(self.fileno())
            _sync_folder(Path(os.fsdecode(cast("IO[bytes]", self.raw).name)).parent)
        super().close()


# The cleaner removes a partition's folder once it is empty, maybe just before this file is in it.
@stamina.retry(on=FileNotFoundError, attempts=20, timeout=None, wait_initial=0.001, wait_max=0.05)
def _open_in_folder(path: Path, mode: str) -> io.FileIO:
    _make_folder(path.parent)
    return io.FileIO(path, mode)


def _make_folder(folder: Path) -> None:
    """Make *folder* and those above it that are missing, each one durably."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
