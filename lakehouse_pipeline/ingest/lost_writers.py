"""Forgetting writers whose spools are lost, so that tables do not carry their numbers for good.

A drained spool's writer is forgotten at once (``Sink.retire``). Where a spool goes with its disk,
as in a container without a volume, its progress would stay in each of the table's metadata files.
It is forgotten once it has not moved for ``LOST_AFTER``: by the calendar of whoever looks, not by
what the rows speak of, since a replay of an old recording is at work today.

A spool that comes back after longer is drained as any other. Only what it had sent in its very last
commit, and had not yet heard of, would be there twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta

import structlog

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.tables import TABLES

from .sink import WRITER

log = structlog.get_logger()

LOST_AFTER = timedelta(days=90)
NOTED = "writers_noted"  # table property: since which day each progress has been what it is

Noted = Mapping[str, tuple[int, date]]  # by writer


def note_progress(noted: Noted, progress: Mapping[str, int], today: date) -> Noted:
    """Return since when each writer's *progress* has been what it is, as far as is known."""
    return {
        writer: noted[writer] if noted.get(writer, (None,))[0] == at else (at, today)
        for writer, at in progress.items()
    }


def forget_lost_writers(lake: Lakehouse, table: str, *, today: date) -> list[str]:
    """Forget the writers of *table* that are lost, note where the others are; return the lost."""
    progress = lake.progress_by(table, WRITER)
    text = lake.note(table, NOTED)
    if not progress and text is None:
        return []
    before = _parse(text)
    noted = note_progress(before, progress, today)
    lost = [writer for writer, (_, since) in noted.items() if today - since >= LOST_AFTER]
    for writer in lost:
        lake.forget(table, f"{WRITER}{writer}")
        log.info("writer_forgotten", table=table, writer_id=writer, progress=progress[writer])
    kept = {writer: known for writer, known in noted.items() if writer not in lost}
    if kept != before:
        lake.append(table, TABLES[table].empty, progress={NOTED: _dump(kept)})
    return lost


def _parse(text: str | None) -> Noted:
    told = json.loads(text or "{}")
    return {writer: (at, date.fromisoformat(since)) for writer, (at, since) in told.items()}


def _dump(noted: Noted) -> str:
    told = {writer: (at, since.isoformat()) for writer, (at, since) in noted.items()}
    return json.dumps(told, separators=(",", ":"))
