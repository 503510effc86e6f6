"""Group commit: what the event loop receives becomes durable in the spool, off the loop.

Entries wait in memory for at most the group-commit interval. Memory is bounded: when the disk is
slower than the feed, or the spool has reached its limit, new quotes are shed and the spool says so
with a ``shed`` mark for exactly the time that is missing. Coverage is never shed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import structlog

from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.telemetry import QUOTES as QUOTES_COUNTED
from lakehouse_pipeline.telemetry import REJECTS as REJECTS_COUNTED
from lakehouse_pipeline.telemetry import SPOOL_BYTES

from .heartbeat import WorkerStatus
from .lane import Lane
from .rows import COVERAGE, QUOTES, REJECTS, TARGETS, Entry, instant, mark, row_times
from .spool import Spool

log = structlog.get_logger()

MAX_WAITING = 100_000  # entries in memory; some 50 MB
QUOTE_KIND = TARGETS[QUOTES].columns.index("kind")
MARK_KIND, MARK_SYMBOL = map(TARGETS[COVERAGE].columns.index, ("kind", "symbol"))
REJECT_REASON = TARGETS[REJECTS].columns.index("reason")


@dataclass
class _Missing:
    session_id: str
    start: int
    end: int = 0
    count: int = 0

    def mark(self) -> Entry:
        return mark(self.session_id, Mark.SHED, self.start, self.end, detail=str(self.count))


class Journal:
    """Appends to one spool from its own thread, counting in *status*; ``run`` must be running."""

    def __init__(
        self,
        spool: Spool,
        status: WorkerStatus,
        *,
        interval: timedelta,
        max_bytes: int,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._spool = spool
        self._status = status
        self._exchange = status.exchange
        self._interval = interval.total_seconds()
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._waiting: list[Entry] = []
        self._missing: _Missing | None = None  # shed since the last append
        self._shed_until: int | None = None  # None: what came last was kept
        self._wake = asyncio.Event()
        self._lane = Lane("spool")
        self._failure: Exception | None = None
        self._size = spool.size_bytes()
        self._receiving: set[str] = set()  # symbols with durable data on the present session

    @property
    def last_sequence(self) -> int:
        return self._spool.last_sequence

    def put(self, entries: list[Entry], *, session_id: str, at: int) -> None:
        """Take the entries of one moment (epoch µs) to be made durable within the interval."""
        if not entries:
            return
        if len(self._waiting) < self._max_waiting and self._size < self._max_bytes:
            self._waiting.extend(entries)
            self._shed_until = None
        else:
            coverage = [entry for entry in entries if entry[0] == COVERAGE]
            self._waiting.extend(coverage)
            self._shed(len(entries) - len(coverage), session_id=session_id, at=at)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Spool what is put, for ever.

        Raises:
            SpoolError: the disk is full, or fails; the spool is as it was, and nothing more will be
                appended to it by this process.
        """
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._interval)
            await self.flush()

    async def flush(self) -> None:
        """Make everything put so far durable."""
        self._wake.clear()
        batch, self._waiting = self._waiting, []
        if self._missing is not None:
            batch.append(self._missing.mark())
            self._missing = None
        if batch:
            await self._lane.run(self._append, batch)

    def close(self) -> None:
        self._lane.close()

    def _append(self, batch: list[Entry]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._spool.append(batch)
        except Exception as error:
            # A later mark would claim what this batch held, so nothing more is appended.
            self._failure = error
            raise
        self._size = self._spool.size_bytes()
        self._count(batch)

    def _count(self, batch: list[Entry]) -> None:
        kinds = Counter(str(row[QUOTE_KIND]) for target, row in batch if target == QUOTES)
        for kind, count in kinds.items():
            QUOTES_COUNTED.labels(self._exchange, kind).inc(count)
        refusals = Counter(str(row[REJECT_REASON]) for target, row in batch if target == REJECTS)
        for reason, count in refusals.items():
            REJECTS_COUNTED.labels(self._exchange, reason).inc(count)
        SPOOL_BYTES.labels(self._exchange).set(self._size)
        self._follow_symbols(batch)
        self._status.quotes += kinds.total()
        self._status.rejects += refusals.total()
        self._status.last_durable_at = instant(row_times(*batch[-1])[2])

    def _follow_symbols(self, batch: list[Entry]) -> None:
        for target, row in batch:
            if target != COVERAGE:
                continue
            match row[MARK_KIND], row[MARK_SYMBOL]:
                case Mark.OPENED | Mark.ENDED, _:
                    self._receiving.clear()
                case Mark.SUBSCRIBED, str(symbol):
                    self._receiving.add(symbol)
                case Mark.UNSUBSCRIBED | Mark.REFUSED | Mark.STALLED, str(symbol):
                    self._receiving.discard(symbol)
        self._status.receiving = len(self._receiving)

    def _shed(self, count: int, *, session_id: str, at: int) -> None:
        if count == 0:
            return
        self._status.shed += count
        if self._missing is None or self._missing.session_id != session_id:
            if self._missing is not None:
                self._waiting.append(self._missing.mark())
            if self._shed_until is None:
                log.warning("shedding_began", waiting=len(self._waiting), spool_bytes=self._size)
            # Windows with nothing kept between them touch, and merge at commit.
            self._missing = _Missing(
                session_id, at if self._shed_until is None else self._shed_until
            )
        self._missing.count += count
        self._missing.end = self._shed_until = at + 1  # half-open: the last one is inside
