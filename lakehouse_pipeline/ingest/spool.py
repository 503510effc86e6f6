"""One writer's durable queue: a SQLite file that only one process may hold.

What is appended here survives a crash of the process and of the machine. A spool carries its own
``writer_id``, made with the file, and gives every entry the next sequence number; a row's identity
is the pair. Numbers are never used twice, also after their rows are forgotten. It also remembers
which sessions have not ended, so that whoever opens it after a crash can say how they ended.

Entries are stored as one blob per append, with a checksum. What the rows mean belongs to ``rows``;
which spool a worker may use belongs to ``adoption``; reading a broken file to ``salvage``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lakehouse_pipeline.errors import SpoolError, SpoolFull, StateDirectoryError

from .locking import take_lock
from .rows import COVERAGE, Entry, session_change

FORMAT = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
    last INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    session_id TEXT PRIMARY KEY, last_frame INTEGER NOT NULL
) WITHOUT ROWID;
"""
SUFFIX = ".sqlite"

# Any: a row mixes strings, numbers and nulls; its columns are typed when frames are built.
# Tuples of plain values, unlike lists, soon leave the garbage collector's sight: a commit of
# 100,000 rows must not make it stop the event loop to look at each.
_decode = msgspec.msgpack.Decoder(list[tuple[str, tuple[Any, ...]]]).decode
_encode = msgspec.msgpack.Encoder().encode


class SpoolDamaged(SpoolError):
    """The file, or a part of it, cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries appended together; entry *i* has the sequence ``first + i``."""

    first: int
    last: int
    entries: list[tuple[str, tuple[Any, ...]]]


class Spool:
    """The open spool at *path*, held by an exclusive lock for as long as it is open.

    Safe to append to from one thread and to read from another.

    Raises:
        SpoolLocked: another process (or another object of this one) holds it.
        SpoolDamaged: it is not a readable spool.
        SpoolFull: the disk is full.
        StateDirectoryError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer_id = path.name.removesuffix(SUFFIX)
        self._mutex = threading.Lock()
        self._lock_fd: int | None = take_lock(path)
        with contextlib.ExitStack() as undo:
            undo.callback(self._unlock)
            self._write = undo.enter_context(contextlib.closing(self._connect()))
            self._read = undo.enter_context(contextlib.closing(self._connect()))
            with _faults(path):
                self._write.executescript(SCHEMA)
                meta = dict(self._write.execute("SELECT key, value FROM meta"))
                self._sessions: dict[str, int] = dict(
                    self._write.execute("SELECT session_id, last_frame FROM sessions")
                )
            _check_format(path, meta.get("format", FORMAT))
            self._last = int(meta.get("last", 0))
            undo.pop_all()

    @classmethod
    def create(cls, folder: Path) -> Spool:
        """Make a spool with a new writer_id in *folder*."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateDirectoryError(
                f"{folder} cannot be made: {error.strerror}.", mend="Set LAKEHOUSE_STATE_DIR."
            ) from error
        return cls(folder / f"{uuid.uuid4().hex}{SUFFIX}")

    @property
    def last_sequence(self) -> int:
        """The number of the newest entry ever appended; 0 before the first."""
        return self._last

    @property
    def open_sessions(self) -> dict[str, int]:
        """Sessions that were opened and not ended: their last durable frame, epoch µs."""
        return dict(self._sessions)

    def append(self, entries: Sequence[Entry]) -> int:
        """Make *entries* durable, in order; return the last sequence number.

        Raises:
            SpoolFull: the disk is full; the spool is as it was.
        """
        assert entries
        sessions = _follow_sessions(self._sessions, entries)
        with self._mutex:
            first, last = self._last + 1, self._last + len(entries)
            with self._transaction() as write:
                insert_batch(write, first, entries)
                if sessions != self._sessions:
                    write.execute("DELETE FROM sessions")
                    write.executemany("INSERT INTO sessions VALUES (?, ?)", sessions.items())
            self._last, self._sessions = last, sessions
        return last

    def read(self, after: int, limit: int) -> list[Batch]:
        """Return the oldest batches with entries beyond *after*, about *limit* entries of them.

        Raises:
            SpoolDamaged: a batch there cannot be read.
        """
        batches: list[Batch] = []
        count = 0
        with _faults(self.path), contextlib.closing(self._read.cursor()) as cursor:
            for last, first, checksum, payload in cursor.execute(
                "SELECT last, first, checksum, payload FROM batches WHERE last > ? ORDER BY last",
                (after,),
            ):
                batches.append(decode_batch(self.path, last, first, checksum, payload))
                count += last - first + 1
                if count >= limit:
                    break
        return batches

    def rows_after(self, sequence: int) -> int:
        """Return how many entries beyond *sequence* are held."""
        with _faults(self.path):
            (count,) = self._read.execute(
                "SELECT coalesce(sum(last - max(first - 1, ?)), 0) FROM batches WHERE last > ?",
                (sequence, sequence),
            ).fetchone()
        return int(count)

    def forget(self, upto: int) -> None:
        """Drop the batches whose every entry is at most *upto*."""
        with self._mutex, self._transaction() as write:
            write.execute("DELETE FROM batches WHERE last <= ?", (upto,))

    def skip_to(self, sequence: int) -> None:
        """Number the next entry above *sequence*, which the lake has seen under this writer.

        After a disk lied about durability the lake can know more than the spool.
        """
        with self._mutex:
            if sequence > self._last:
                with self._transaction() as write:
                    write.execute(
                        "REPLACE INTO meta VALUES ('format', ?), ('last', ?)", (FORMAT, sequence)
                    )
                self._last = sequence

    def size_bytes(self) -> int:
        """Return the bytes in use; pages of forgotten rows are used again and do not count."""
        with _faults(self.path):
            (pages,) = self._read.execute("PRAGMA page_count").fetchone()
            (free,) = self._read.execute("PRAGMA freelist_count").fetchone()
            (size,) = self._read.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def check(self) -> None:
        """Read the whole file once.

        Raises:
            SpoolDamaged: some page or batch is not as it was written.
        """
        with _faults(self.path):
            (verdict,) = self._read.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise SpoolDamaged(f"Spool {self.path} is damaged: {verdict}.")
        after = 0
        while batches := self.read(after, 1):
            after = batches[-1].last

    def close(self) -> None:
        """Release the file and its lock; whatever was appended stays. Closing twice is fine."""
        with self._mutex:
            self._read.close()
            self._write.close()
            self._unlock()

    def delete(self) -> None:
        """Remove a spool that holds nothing any more, its lock last."""
        with self._mutex:
            self._read.close()
            self._write.close()
            remove_database(self.path)
            self.path.with_suffix(".lock").unlink(missing_ok=True)
            self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _connect(self) -> sqlite3.Connection:
        with _faults(self.path):
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=30
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _faults(self.path):
            self._write.execute("BEGIN IMMEDIATE")
            try:
                yield self._write
                self._write.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back after some errors (a full disk).
                if self._write.in_transaction:
                    self._write.execute("ROLLBACK")
                raise


def insert_batch(write: sqlite3.Connection, first: int, entries: Sequence[Entry]) -> None:
    """Store *entries*, numbered from *first*, in the open transaction."""
    payload = _encode(entries)
    last = first + len(entries) - 1
    write.execute(
        "INSERT INTO batches VALUES (?, ?, ?, ?)", (last, first, zlib.crc32(payload), payload)
    )
    write.execute("REPLACE INTO meta VALUES ('format', ?), ('last', ?)", (FORMAT, last))


def decode_batch(path: Path, last: int, first: int, checksum: int, payload: bytes) -> Batch:
    """Return the stored batch as it was appended.

    Raises:
        SpoolDamaged: its bytes are not those that were written.
    """
    if zlib.crc32(payload) != checksum:
        raise SpoolDamaged(f"Spool {path}: entries {first} to {last} are damaged.")
    entries = _decode(payload)
    return Batch(first, last, entries)


def remove_database(path: Path) -> None:
    """Remove a closed SQLite file and what WAL mode left beside it."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _check_format(path: Path, found: int) -> None:
    if found != FORMAT:
        raise SpoolError(
            f"Spool {path} was written in format {found}; this version writes {FORMAT}.",
            mend="Drain it with the version that wrote it.",
        )


def _follow_sessions(sessions: dict[str, int], entries: Sequence[Entry]) -> dict[str, int]:
    followed = dict(sessions)
    for target, row in entries:
        if target == COVERAGE and (change := session_change(row)) is not None:
            session_id, last_frame = change
            if last_frame is None:
                followed.pop(session_id, None)
            else:
                followed[session_id] = last_frame
    return followed


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Give SQLite's errors their names in our tree."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            raise SpoolFull(
                f"The disk of spool {path} is full.",
                mend="Free space; recording starts again then.",
            ) from error
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise SpoolDamaged(f"Spool {path} is damaged: {error}.") from error
        raise SpoolError(f"Spool {path} failed: {error}.") from error
