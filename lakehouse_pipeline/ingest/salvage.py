"""What can still be read of a damaged spool, as a sound one.

The good batches keep their numbers; new ones start far above anything the old file can have given
out. The report of what is lost is part of the new file: a reject row for people, and a ``shed``
mark over a hole that coverage would otherwise claim. The damaged file is set aside, not deleted.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from lakehouse_pipeline.market.coverage import Mark

from .rows import Entry, mark, micros, reject, row_times
from .spool import SCHEMA, Batch, SpoolDamaged, decode_batch, insert_batch, remove_database

log = structlog.get_logger()

# Above every number the damaged file can have given out after its last readable page.
SAFE_DISTANCE = 1_000_000_000
ASIDE = ".damaged"
TEMPORARY = ".salvaged"


def salvage(path: Path) -> Path:
    """Replace the damaged spool at *path*, whose lock the caller holds, by what is good of it.

    Returns where the damaged file is now.
    """
    now = datetime.now(UTC)
    temporary = path.with_suffix(TEMPORARY)
    aside = path.with_suffix(f"{ASIDE}-{now:%Y%m%dT%H%M%S%f}")
    remove_database(temporary)
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as damaged,
        contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as sound,
    ):
        sound.execute("PRAGMA synchronous=FULL")
        sound.executescript(SCHEMA)
        sound.execute("BEGIN")
        before, after, kept = _copy_good(path, damaged, sound)
        last = max(before.last if before else 0, after.last if after else 0, _last_given(damaged))
        for session in _sessions(damaged):
            sound.execute("REPLACE INTO sessions VALUES (?, ?)", session)
        report = [reject(None, micros(now), "spool_damaged", f"{aside.name}: kept {kept} entries")]
        if after is not None:
            report.append(_hole(before, after))
        insert_batch(sound, last + SAFE_DISTANCE, report)
        sound.execute("COMMIT")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    temporary.rename(path)
    log.error("spool_salvaged", spool=str(path), damaged=str(aside), kept=kept)
    return aside


def finish_salvage(path: Path) -> None:
    """Put in place what a crash left between the two renames of ``salvage``."""
    temporary = path.with_suffix(TEMPORARY)
    if temporary.exists() and not path.exists():
        temporary.rename(path)


@dataclass
class _Copied:
    """How far a copy came before the damage."""

    entries: int = 0
    furthest: Batch | None = None
    complete: bool = True


def _copy_good(
    path: Path, damaged: sqlite3.Connection, sound: sqlite3.Connection
) -> tuple[Batch | None, Batch | None, int]:
    """Copy forward to the first damage, then backward to the last.

    Returns the good batches at the edges of the hole, and how many entries were copied.
    """
    head = _copy(path, damaged, sound, "ASC", beyond=0)
    if head.complete:
        return head.furthest, None, head.entries
    beyond = head.furthest.last if head.furthest else 0
    tail = _copy(path, damaged, sound, "DESC", beyond=beyond)
    return head.furthest, tail.furthest, head.entries + tail.entries


def _copy(
    path: Path, damaged: sqlite3.Connection, sound: sqlite3.Connection, order: str, *, beyond: int
) -> _Copied:
    copied = _Copied()
    query = f"SELECT * FROM batches WHERE last > ? ORDER BY last {order}"  # noqa: S608  # ours
    try:
        for row in damaged.execute(query, (beyond,)):
            batch = decode_batch(path, *row)
            sound.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", row)
            copied.entries += len(batch.entries)
            copied.furthest = batch
    except (sqlite3.DatabaseError, SpoolDamaged):
        copied.complete = False
    return copied


def _last_given(damaged: sqlite3.Connection) -> int:
    """Return the newest number the file says it gave out; 0 if it cannot be read."""
    try:
        row = damaged.execute("SELECT value FROM meta WHERE key = 'last'").fetchone()
    except sqlite3.DatabaseError:
        return 0
    return int(row[0]) if row else 0


def _sessions(damaged: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return the sessions the file says have not ended; none if it cannot be read."""
    try:
        return damaged.execute("SELECT session_id, last_frame FROM sessions").fetchall()
    except sqlite3.DatabaseError:
        return []


def _hole(before: Batch | None, after: Batch) -> Entry:
    """Return the mark that takes back what marks after the hole claim of it."""
    later = [row_times(target, row) for target, row in after.entries]
    session_id = later[0][0]
    if before is None:
        start = min(start for _, start, _ in later)
    else:
        start = max(end for _, _, end in (row_times(target, row) for target, row in before.entries))
    end = max(end for _, _, end in later)
    return mark(session_id or "", Mark.SHED, start, end, reason="spool_damaged", detail="0")
