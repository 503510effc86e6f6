"""One process's recording of one exchange: its parts side by side, and an orderly end.

Receiver, journal, committer, heartbeat and what keeps the token fresh wait for nobody but their
own work. Whatever ends them,
the session's end is marked, everything received is made durable, and what the lake takes within a
bounded time is committed; the rest stays in the spool for the next worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import structlog

from lakehouse_pipeline.errors import SpoolError
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.settings import FeedSettings, Settings
from lakehouse_pipeline.telemetry import SPOOL_ROWS, STUDIES_LACKING

from .clock import Clock, make_clock
from .committer import Committer, OnCommit
from .desired import DesiredSymbols
from .feed import Receiver
from .heartbeat import WorkerStatus, write_status
from .journal import Journal
from .landed import Landed
from .lane import Lane
from .limiter import ConnectLimiter
from .scripts import StudyScripts
from .sink import Sink
from .spool import Spool
from .supervision import is_alive, workers
from .together import until_first_ends
from .tokens import Tokens

log = structlog.get_logger()

FLUSH_PATIENCE = timedelta(seconds=20)  # then the rest is left to the next worker
BEAT = timedelta(seconds=1)
LAKE_PATIENCE = timedelta(seconds=15)  # for what is stored; then studies are asked for without
OVERLAP = timedelta(seconds=10)  # of two lines, in which their counters come to agree
SHORTEST_SILENCE = timedelta(seconds=0.5)  # of the watchdog, however fast the feed's clock


class Recording:
    """``run``, and then in any case ``finish``; between them ``ended_how`` says why it ended."""

    def __init__(
        self,
        settings: Settings,
        status: WorkerStatus,
        *,
        own: Spool,
        orphans: list[Spool],
        sink: Sink,
        lane: Lane,
        on_commit: OnCommit | None,
    ) -> None:
        self.ended_how = Ending.STOPPED.value
        self._settings = settings
        self._status = status
        self._spools = [own, *orphans]
        self._own = own
        self._lane = lane
        self._sink = sink
        self._journal = Journal(
            own,
            status,
            interval=settings.ingest.group_commit,
            max_bytes=settings.ingest.spool_max_bytes,
        )
        self._committer = Committer(
            own,
            orphans,
            sink=sink,
            lane=lane,
            settings=settings.ingest,
            status=status,
            on_commit=on_commit,
        )

    async def run(self, desired: DesiredSymbols, stop: asyncio.Event) -> None:
        """Record until *stop*; raise what no part can go on after."""
        clock = make_clock(self._settings.clock)
        tokens = Tokens(self._settings.feed, now=lambda: datetime.now(UTC))
        landed = Landed()

        async def allowed() -> None:
            await tokens.wait_for_one()
            await self._look_up(landed, desired.now(), scripts.chosen, clock)

        scripts = StudyScripts(self._settings.feed, self._settings.indicators, allowed=allowed)
        receiver = Receiver(
            _at_clock_speed(self._settings),
            clock=clock,
            limiter=ConnectLimiter(
                self._settings.state_dir / "connects", self._settings.feed.connect_interval
            ),
            desired=desired.now,
            tokens=tokens,
            scripts=scripts,
            landed=landed,
            journal=self._journal,
            status=self._status,
        )
        await until_first_ends(
            receiver.run(),
            tokens.run(),
            scripts.run(),
            self._journal.run(),
            self._committer.run(),
            self._beat(),
            self._hand_over(receiver, clock),
            stop.wait(),
        )

    async def finish(self, how: str) -> None:
        """Make durable what was received, commit what the lake takes in time, say goodbye."""
        exchange = self._status.exchange
        try:
            await self._journal.flush()
        except SpoolError as error:
            # The error that ended the recording; the caller is raising it already.
            log.warning("spool_not_flushed", exchange=exchange, problem=str(error))
        try:
            async with asyncio.timeout(FLUSH_PATIENCE.total_seconds()):
                await self._committer.commit_all()
        except Exception as error:  # noqa: BLE001  # whatever it is, the rows are safe in the spool
            problem = str(error) or "the lake did not answer in time"
            log.warning("rows_left_in_spool", exchange=exchange, problem=problem)
        self._journal.close()
        # In the lane, so that a commit that still hangs keeps its spools until the process ends.
        self._lane.post(self._close_spools)
        self._lane.close()
        self._status.ended = how
        self._status.connected = False
        self._write_status()
        log.info("worker_ended", exchange=exchange, how=how)

    def _close_spools(self) -> None:
        for spool in self._spools:
            spool.close()

    async def _look_up(
        self,
        landed: Landed,
        symbols: Collection[str],
        studies: Collection[tuple[str, str]],
        clock: Clock,
    ) -> None:
        """Learn from the lake how far studies have come; a lake that is away is not waited for."""
        while not clock.is_set:  # noqa: ASYNC110  # by whoever connects; a clock has no event
            await asyncio.sleep(BEAT.total_seconds())
        try:
            async with asyncio.timeout(LAKE_PATIENCE.total_seconds()):
                look = self._sink.newest_values
                stored = await self._lane.run(look, symbols, studies, clock.now())
        except Exception as error:  # noqa: BLE001  # whatever ails the lake, recording goes on
            problem = str(error) or "no answer in time"
            log.warning("studies_not_looked_up", exchange=self._status.exchange, problem=problem)
        else:
            landed.learn(symbols, stored)

    async def _beat(self) -> NoReturn:
        lease = time.monotonic() + self._settings.ingest.lease.total_seconds()
        while True:
            self._status.lease_expired = time.monotonic() >= lease
            self._write_status()
            await asyncio.sleep(BEAT.total_seconds())

    async def _hand_over(self, receiver: Receiver, clock: Clock) -> None:
        """Return when a successor records every symbol, or at the last moment without one.

        Whoever starts a second worker (at the lease's end, or for a new version) wants it to stay.
        One that fails within the overlap has taken nothing over.
        """
        patience = self._settings.ingest.lease + self._settings.ingest.hand_over
        deadline = time.monotonic() + patience.total_seconds()
        while time.monotonic() < deadline:
            if self._has_successor():
                log.info("successor_records", exchange=self._status.exchange)
                await clock.sleep(OVERLAP)
                if self._has_successor():
                    receiver.ending = Ending.HANDED_OVER
                    break
                log.warning("successor_lost", exchange=self._status.exchange)
            await asyncio.sleep(BEAT.total_seconds())
        else:
            receiver.ending = Ending.LEASE_OVER
        self.ended_how = receiver.ending.value
        log.info("worker_leaves", exchange=self._status.exchange, how=self.ended_how)

    def _has_successor(self) -> bool:
        """Tell whether a newer worker has durable rows of as many symbols as this one."""
        own, now = self._status, datetime.now(UTC)
        return any(
            other.is_newer_than(own)
            and other.quotes > 0
            and other.receiving >= max(own.receiving, 1)
            and is_alive(other, now)
            for other in workers(self._settings.state_dir, own.exchange)
        )

    def _write_status(self) -> None:
        self._status.touch()
        self._status.pending = self._own.last_sequence - self._status.last_commit_sequence
        SPOOL_ROWS.labels(self._status.exchange).set(self._status.pending)
        STUDIES_LACKING.labels(self._status.exchange).set(self._status.studies_lacking)
        try:
            write_status(self._settings.state_dir, self._status)
        except OSError as error:
            log.warning("heartbeat_not_written", problem=str(error))


def _at_clock_speed(settings: Settings) -> FeedSettings:
    """Return the feed's settings with the silence watchdog in the clock's own seconds."""
    speed = settings.clock.speed if settings.clock.source == "feed" else 1.0
    silence = max(settings.feed.silence_timeout / speed, SHORTEST_SILENCE)
    return settings.feed.model_copy(update={"silence_timeout": silence})
