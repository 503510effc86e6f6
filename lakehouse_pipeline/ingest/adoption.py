"""Which spools a starting worker finds, and which one becomes its own.

Every spool of the exchange that no process holds is taken: one to go on with, the others to be
drained. An orphan of a killed server still holds its lock and is left alone. Before a spool is
appended to again, the lake is asked how far it knows that writer, so that no number is used twice
even after a disk lied. A lake that is away costs no second of recording: then a new spool is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from lakehouse_pipeline.errors import LakeError, SpoolLocked, StateDirectoryError
from lakehouse_pipeline.market.coverage import Ending, Mark

from .rows import mark
from .salvage import TEMPORARY, finish_salvage, salvage
from .spool import SUFFIX, Spool, SpoolDamaged, spool_lock

log = structlog.get_logger()


@dataclass(frozen=True)
class Adoption:
    """The spool a worker records on, and those it drains."""

    own: Spool
    orphans: list[Spool]


def adopt(folder: Path, progress: Callable[[str], int]) -> Adoption:
    """Take every free spool in *folder*; make one if none can be appended to.

    Args:
        folder: of one exchange.
        progress: the lake's newest sequence of a writer; may raise ``LakeError``.
    """
    found = [spool for path in _spool_paths(folder) if (spool := _take(path)) is not None]
    try:
        for spool in found:
            settle(spool, progress(spool.writer_id))
    except (LakeError, StateDirectoryError) as error:
        log.warning("lake_away_at_start", problem=str(error))
        return Adoption(Spool.create(folder), found)
    if not found:
        return Adoption(Spool.create(folder), [])
    return Adoption(found[0], found[1:])


def settle(spool: Spool, known: int) -> None:
    """Make a spool of an ended process ready: numbers above *known*, every session ended.

    Whoever wrote it did not say how its sessions ended, so it crashed; the marks are appended once,
    because appending them ends the sessions.
    """
    spool.skip_to(known)
    if sessions := spool.open_sessions:
        spool.append(
            [
                mark(session_id, Mark.ENDED, at, at, reason=Ending.CRASHED.value)
                for session_id, at in sessions.items()
            ]
        )


def _spool_paths(folder: Path) -> list[Path]:
    paths = set(folder.glob(f"*{SUFFIX}"))
    paths |= {path.with_suffix(SUFFIX) for path in folder.glob(f"*{TEMPORARY}")}
    return sorted(paths)


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


def _sound(path: Path) -> Spool:
    with contextlib.ExitStack() as stack:
        spool = Spool(path)
        stack.callback(spool.close)
        spool.check()
        stack.pop_all()
    return spool
