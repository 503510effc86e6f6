"""The worker's two entrances: ``record`` in an event loop, ``run_worker`` in a thread of its own.

A starting worker takes a spool and settles what an ended one left; then it records. A lake that is
away never keeps it from recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from lakehouse_pipeline.errors import Banned, SpoolError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import Settings

from .adoption import settle, take_free
from .committer import OnCommit
from .desired import DesiredSymbols
from .heartbeat import WorkerStatus
from .lane import Lane
from .recording import FLUSH_PATIENCE, Recording
from .sink import Sink
from .spool import Spool
from .supervision import Failure, bury_the_dead, record_failure

log = structlog.get_logger()

LAKE_PATIENCE = timedelta(seconds=15)  # at the start, before recording begins without the lake
# Polars, loaded by then or not, has SIGINT restart a wait; its exception is raised after the wait.
LOOK_UP = 0.5  # seconds
END_PATIENCE = FLUSH_PATIENCE + timedelta(seconds=10)


async def record(
    settings: Settings,
    exchange: str,
    *,
    run_id: str = "",
    stop: asyncio.Event,
    on_commit: OnCommit | None = None,
) -> None:
    """Record *exchange* until *stop* is set; then flush and return.

    *run_id* is written into the heartbeat as it is. *on_commit* is called on the event loop after
    each commit and must not block.

    Raises:
        SettingsError: the exchange or the feed's address is not configured.
        Banned: the feed does not want us.
        SpoolError: the disk is full or the spool unusable; what was durable stays.
        StateDirectoryError: the state folder cannot be used.
    """
    try:
        await _record(settings, exchange, run_id, stop, on_commit)
    except Exception as error:
        # Also what went wrong before anything was recorded: the next start must be waited for.
        reason, banned = str(error) or type(error).__name__, isinstance(error, Banned)
        failure = Failure(at=datetime.now(UTC), reason=reason, banned=banned, run_id=run_id)
        try:
            record_failure(settings.state_dir, exchange, failure)
        except OSError as disk:
            log.warning("failure_not_recorded", exchange=exchange, problem=str(disk))
        raise


async def _record(
    settings: Settings, exchange: str, run_id: str, stop: asyncio.Event, on_commit: OnCommit | None
) -> None:
    gc.freeze()  # what is imported stays: looking at it again takes a collection 100 ms and more
    desired = DesiredSymbols(settings, exchange)
    bury_the_dead(settings.state_dir, exchange, datetime.now(UTC))
    sink = Sink(lambda: Lakehouse.open(settings), exchange, max_rows=settings.ingest.commit_rows)
    lane = Lane("sink")
    own, orphans = await _take_spools(settings.state_dir / "spool" / exchange, lane, sink)
    status = WorkerStatus.begin(exchange, own.writer_id, run_id)
    status.last_commit_sequence = own.last_sequence - own.rows_after(0)
    recording = Recording(
        settings, status, own=own, orphans=orphans, sink=sink, lane=lane, on_commit=on_commit
    )
    log.info("worker_started", exchange=exchange, writer_id=own.writer_id, orphans=len(orphans))
    try:
        await recording.run(desired, stop)
    except BaseException as error:
        await recording.finish(str(error) or type(error).__name__)
        raise
    await recording.finish(recording.ended_how)


def run_worker(
    settings: Settings, exchange: str, *, run_id: str = "", on_commit: OnCommit | None = None
) -> None:
    """Record *exchange* until this thread is interrupted by whatever exception; flush; re-raise.

    The event loop runs in a thread of its own, where no signal arrives: a second interrupt during
    the flush cannot cut it short. *on_commit* is called in that thread.

    Raises:
        BaseException: the interrupt, after the flush; else what ``record`` raises.
    """
    stop = asyncio.Event()
    runner = asyncio.Runner()
    loop = runner.get_loop()
    raised: list[BaseException] = []
    # Not Thread.join: interrupted by an exception, it takes a living thread for ended (bpo-45274).
    ended = threading.Event()

    def run() -> None:
        try:
            with runner:
                runner.run(
                    record(settings, exchange, run_id=run_id, stop=stop, on_commit=on_commit)
                )
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            raised.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name=f"worker {exchange}", daemon=True).start()
    interrupt = _wait_whatever_comes(ended, lambda: loop.call_soon_threadsafe(stop.set))
    if interrupt is not None:
        raise interrupt
    if raised:
        raise raised[0]


def _wait_whatever_comes(
    ended: threading.Event, ask_to_end: Callable[[], object]
) -> BaseException | None:
    """Wait for the end; the first interrupt asks for it, further ones change nothing.

    Returns the first interrupt. The end is not waited for without limit after it.
    """
    first: BaseException | None = None
    deadline = float("inf")
    while not ended.is_set() and time.monotonic() < deadline:
        try:
            if first is not None:
                with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                    ask_to_end()
            ended.wait(min(LOOK_UP, deadline - time.monotonic()))
        except BaseException as interrupt:  # noqa: BLE001  # raised by the caller, after the flush
            log.info("worker_interrupted", by=type(interrupt).__name__, again=first is not None)
            if first is None:
                first = interrupt
                deadline = time.monotonic() + END_PATIENCE.total_seconds()
    return first


async def _take_spools(folder: Path, lane: Lane, sink: Sink) -> tuple[Spool, list[Spool]]:
    """Return the spool to record on, and those to drain."""
    found = await lane.run(take_free, folder)

    def settle_all() -> None:
        for spool in found:
            settle(spool, sink.progress(spool.writer_id))

    try:
        async with asyncio.timeout(LAKE_PATIENCE.total_seconds()):
            await lane.run(settle_all)
    except SpoolError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever ails the lake, recording must begin
        log.warning("lake_away_at_start", problem=str(error) or "no answer in time")
        return Spool.create(folder), found
    return (found[0] if found else Spool.create(folder)), found[1:]
