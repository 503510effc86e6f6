"""Which spools a starting worker finds, and which one becomes its own.

Every spool of the exchange that no process holds is taken: one to go on with, the others to be
drained. An orphan of a killed server still holds its lock and is left alone. Before a spool is
appended to again it is settled with the lake, so that no number is used twice even after a disk
lied. A lake that is away must cost no second of recording: the worker then uses a new spool.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import structlog

from lakehouse_pipeline.errors import SpoolError, SpoolFull, SpoolLocked
from lakehouse_pipeline.market.coverage import Ending, Mark

from .locking import spool_lock
from .rows import mark
from .salvage import TEMPORARY, finish_salvage, salvage
from .spool import SUFFIX, Spool, SpoolDamaged

log = structlog.get_logger()


def take_free(folder: Path) -> list[Spool]:
    """Open every spool in *folder* that nobody holds, damaged ones salvaged.

    One that cannot be used (another version's, say) is left as it is: it must not keep the
    exchange from being recorded.

    Raises:
        SpoolFull: the disk is full.
        StateDirectoryError: the folder cannot be written.
    """
    paths = set(folder.glob(f"*{SUFFIX}"))
    paths |= {path.with_suffix(SUFFIX) for path in folder.glob(f"*{TEMPORARY}")}
    return [spool for path in sorted(paths) if (spool := _take(path)) is not None]


def settle(spool: Spool, known: int) -> None:
    """Make the spool of an ended process ready: numbers above *known*, every session ended.

    *known* is the newest sequence the lake has of this writer. Whoever wrote the spool did not say
    how its open sessions ended, so it crashed; appending that ends them, so it is said once.
    """
    spool.skip_to(known)
    if sessions := spool.open_sessions:
        spool.append(
            [
                mark(session_id, Mark.ENDED, at, at, reason=Ending.CRASHED.value)
                for session_id, at in sessions.items()
            ]
        )


def _take(path: Path) -> Spool | None:
    """Return the open, sound spool at *path*, or None if another process holds it."""
    try:
        with spool_lock(path):
            finish_salvage(path)
            if not path.exists():
                return None  # drained and deleted by another worker meanwhile
        try:
            return _sound(path)
        except SpoolDamaged:
            with spool_lock(path):
                salvage(path)
            return _sound(path)
    except SpoolLocked:
        return None
    except SpoolFull:
        raise
    except SpoolError as error:
        log.warning("spool_left_alone", spool=str(path), problem=str(error))
        return None


def _sound(path: Path) -> Spool:
    with contextlib.ExitStack() as stack:
        spool = Spool(path)
        stack.callback(spool.close)
        spool.check()
        stack.pop_all()
    return spool
