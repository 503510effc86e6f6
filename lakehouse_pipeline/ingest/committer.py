"""When to commit, what to drain, and what to do while the lake is away.

The recording does not wait for any of it: rows that cannot be committed stay in the spool, and the
worker's status says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import structlog

from lakehouse_pipeline.errors import LakeError, SpoolError
from lakehouse_pipeline.settings import IngestSettings

from .adoption import settle
from .heartbeat import WorkerStatus
from .lane import Lane
from .sink import CommitReport, Sink
from .spool import Spool, SpoolDamaged

log = structlog.get_logger()

OnCommit = Callable[[CommitReport], None]

RETRY_MAX = timedelta(seconds=60)
LOOK_EVERY = 0.25  # seconds between looks at how much is waiting


class Committer:
    """Brings one worker's spool, and the orphans it found, to the lake."""

    def __init__(
        self,
        own: Spool,
        orphans: list[Spool],
        *,
        sink: Sink,
        lane: Lane,
        settings: IngestSettings,
        status: WorkerStatus,
        on_commit: OnCommit | None,
    ) -> None:
        self._own = own
        self._orphans = orphans
        self._sink = sink
        self._lane = lane
        self._settings = settings
        self._status = status
        self._on_commit = on_commit

    async def run(self) -> NoReturn:
        """Commit at each interval, or earlier at enough rows, for ever.

        Raises:
            SpoolError: the worker's own spool cannot be used.
        """
        failures = 0
        while True:
            await self._due()
            try:
                await self.commit_all()
            except SpoolError:
                raise
            except Exception as error:  # noqa: BLE001  # outcome unknown: the next attempt looks
                failures += 1
                pause = min(2.0**failures, RETRY_MAX.total_seconds())
                self._status.lake_error = str(error) or type(error).__name__
                log.warning(
                    "commit_failed",
                    exchange=self._status.exchange,
                    problem=self._status.lake_error,
                    pause_seconds=pause,
                )
                await asyncio.sleep(pause)
            else:
                failures = 0
                self._status.lake_error = ""

    async def commit_all(self) -> None:
        """Commit what the own spool holds by now, then drain the orphans."""
        upto = self._own.last_sequence
        while (report := await self._lane.run(self._sink.commit, self._own)) is not None:
            self._status.last_commit_at = datetime.now(UTC)
            self._status.last_commit_sequence = report.last_sequence
            self._publish(report)
            if report.last_sequence >= upto:
                break
        while self._orphans:
            await self._drain(self._orphans[0])

    async def _due(self) -> None:
        deadline = time.monotonic() + self._settings.commit_interval.total_seconds()
        while (rest := deadline - time.monotonic()) > 0:
            waiting = self._own.last_sequence - self._status.last_commit_sequence
            if waiting >= self._settings.commit_rows:
                return
            await asyncio.sleep(min(rest, LOOK_EVERY))

    async def _drain(self, orphan: Spool) -> None:
        """Commit all of an orphan and delete it."""
        try:
            known = await self._lane.run(self._sink.progress, orphan.writer_id)
            await self._lane.run(settle, orphan, known)
            while (report := await self._lane.run(self._sink.commit, orphan)) is not None:
                self._publish(report)
        except SpoolDamaged as error:
            # It was whole when it was taken; the next worker to start salvages it.
            log.warning("orphan_damaged", spool=str(orphan.path), problem=str(error))
            orphan.close()
            self._orphans.remove(orphan)
            return
        await self._lane.run(self._bury, orphan)
        log.info("orphan_drained", exchange=self._status.exchange, writer_id=orphan.writer_id)

    def _bury(self, orphan: Spool) -> None:
        """Delete a drained orphan and forget its number.

        One call of the lane: a worker that is stopped meanwhile comes back to all of it or none.
        """
        orphan.delete()
        self._orphans.remove(orphan)
        try:
            self._sink.retire(orphan.writer_id)
        except LakeError as error:
            # The number of a writer that is gone harms nobody; the drained spool must not return.
            log.warning("progress_kept", writer_id=orphan.writer_id, problem=str(error))

    def _publish(self, report: CommitReport) -> None:
        if self._on_commit is not None:
            self._on_commit(report)
