"""The lock of a spool: a file beside it, held by the operating system for its owner's life.

A killed process loses it with its last breath; an orphan that still lives keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lakehouse_pipeline.errors import SpoolLocked, StateDirectoryError


@contextlib.contextmanager
def spool_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the closed spool at *path*.

    Raises:
        SpoolLocked: another process, or an open ``Spool``, holds it.
    """
    fd = take_lock(path)
    try:
        yield
    finally:
        os.close(fd)


def take_lock(path: Path) -> int:
    """Take the lock of the spool at *path* without waiting; return its file descriptor.

    Raises:
        SpoolLocked: another process, or an open ``Spool``, holds it.
        StateDirectoryError: the folder cannot be written.
    """
    lock_path = path.with_suffix(".lock")
    while True:
        try:
            fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryError(
                f"{lock_path} cannot be written: {error.strerror}.", mend="Set LAKEHOUSE_STATE_DIR."
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise SpoolLocked(f"Spool {path} is in use by another process.") from error
        # Its last owner may have removed the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == lock_path.stat().st_ino:
                return fd
        os.close(fd)
