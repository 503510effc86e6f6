"""From spools to the lake, exactly once.

Each table remembers, in the append's own transaction, up to which sequence of which writer its rows
have come. A commit therefore starts by looking, skips what is there, and sends the rest: quotes
first, then coverage up to the same sequence, so that coverage never claims a second whose quotes
are not there. Only then does the spool forget. After an error of whatever kind nothing is assumed:
the next attempt looks again.

These functions block; the worker runs them in a thread of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from lakehouse_pipeline.lake.commit import Commit
from lakehouse_pipeline.lake.lakehouse import Lakehouse

from .landed import Line, newest_values
from .rows import COVERAGE, TARGETS, build_frame, merge_marks
from .spool import Batch, Spool

log = structlog.get_logger()

WRITER = "writer."  # and a writer's ID: the table property that holds its progress


@dataclass(frozen=True)
class CommitReport:
    """What one commit of one spool brought to the lake."""

    exchange: str
    writer_id: str
    last_sequence: int
    commits: Mapping[str, Commit]  # by table
    remaining: int  # entries of the spool not yet committed


def progress_key(writer_id: str) -> str:
    """Return the table property that holds a writer's progress."""
    return f"{WRITER}{writer_id}"


class Sink:
    """Commits the spools of one exchange; opens the lake when it first needs it.

    Args:
        open_lake: called again after each failure to open it.
        max_rows: about how many entries one commit holds at most.
    """

    def __init__(self, open_lake: Callable[[], Lakehouse], exchange: str, *, max_rows: int) -> None:
        self._open_lake = open_lake
        self._exchange = exchange
        self._max_rows = max_rows
        self._lake: Lakehouse | None = None
        self._committed: dict[str, int] = {}  # writer → sequence up to which all tables are done

    def progress(self, writer_id: str) -> int:
        """Return the highest sequence of a writer that any table holds; 0 for none.

        Raises:
            LakeError: if the lake cannot be asked.
        """
        lake = self._connected()
        key = progress_key(writer_id)
        return max(lake.progress(target.table, key) or 0 for target in TARGETS.values())

    def newest_values(
        self, symbols: Collection[str], studies: Collection[tuple[str, str]], now: datetime
    ) -> dict[Line, int]:
        """Return how far the feed's studies are stored; see ``landed``.

        Raises:
            LakeError: if the lake cannot be asked.
        """
        return newest_values(self._connected(), self._exchange, symbols, studies, now=now)

    def commit(self, spool: Spool) -> CommitReport | None:
        """Bring the spool's oldest uncommitted entries to the lake; None if there were none.

        Raises:
            LakeError: the lake is away or refused; nothing is lost, call again later.
            SpoolDamaged: the spool cannot be read.
        """
        lake = self._connected()
        batches = spool.read(self._committed.get(spool.writer_id, 0), self._max_rows)
        if not batches:
            return None
        last = batches[-1].last
        commits = {
            target.table: commit
            for name, target in TARGETS.items()
            if (commit := self._append(lake, spool.writer_id, name, batches)) is not None
        }
        spool.forget(last)
        self._committed[spool.writer_id] = last
        rows = {table: commit.rows for table, commit in commits.items()}
        log.info("spool_committed", exchange=self._exchange, rows=rows, last_sequence=last)
        return CommitReport(
            exchange=self._exchange,
            writer_id=spool.writer_id,
            last_sequence=last,
            commits=commits,
            remaining=spool.rows_after(last),
        )

    def retire(self, writer_id: str) -> None:
        """Forget the progress of a writer whose spool is deleted, and with it all it numbered.

        A crash before this leaves a few bytes in the tables' properties, and nothing wrong.
        """
        lake = self._connected()
        for target in TARGETS.values():
            lake.forget(target.table, progress_key(writer_id))

    def _append(
        self, lake: Lakehouse, writer_id: str, name: str, batches: Sequence[Batch]
    ) -> Commit | None:
        """Send what a table does not have yet of *batches*, with the progress it makes."""
        target, key = TARGETS[name], progress_key(writer_id)
        numbered = _of_target(batches, name)
        if not numbered:
            return None
        done = lake.progress(target.table, key)
        new = [(sequence, row) for sequence, row in numbered if sequence > (done or 0)]
        if not new:
            return None
        rows = merge_marks(new) if name == COVERAGE else new
        frame = build_frame(target, rows, exchange=self._exchange, writer_id=writer_id)
        return lake.append(target.table, frame, progress={key: batches[-1].last}, seen={key: done})

    def _connected(self) -> Lakehouse:
        if self._lake is None:
            self._lake = self._open_lake()
        return self._lake


def _of_target(batches: Sequence[Batch], name: str) -> list[tuple[int, Sequence[Any]]]:
    return [
        (batch.first + index, row)
        for batch in batches
        for index, (target, row) in enumerate(batch.entries)
        if target == name
    ]
