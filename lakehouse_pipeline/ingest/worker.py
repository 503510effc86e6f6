"""The worker's two entrances: ``record`` in an event loop, ``run_worker`` with signals and all.

A starting worker takes a spool and settles what an ended one left; then it records. A lake that is
away never keeps it from recording.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from lakehouse_pipeline.errors import Banned, SpoolError
from lakehouse_pipeline.interrupts import Interrupts
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
# A signal that comes just before a wait is seen after it.
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
    """Record *exchange* until a signal asks this process to end; flush; then pass it on.

    The event loop runs in a thread of its own, where no signal arrives, and here no handler raises
    before the end: neither a second interrupt nor two at once can cut the flush short. *on_commit*
    is called in that thread.

    Raises:
        BaseException: what the handler of the signal raises, after the flush; else what ``record``
            raises.
    """
    stop = asyncio.Event()
    runner = asyncio.Runner()
    loop = runner.get_loop()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with runner:
                runner.run(
                    record(settings, exchange, run_id=run_id, stop=stop, on_commit=on_commit)
                )
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            raised.append(error)

    with Interrupts() as interrupts:
        wait_for(run, interrupts, lambda: loop.call_soon_threadsafe(stop.set))
    interrupts.pass_on()
    if raised:
        raise raised[0]


def wait_for(
    run: Callable[[], None], interrupts: Interrupts, ask_to_end: Callable[[], object]
) -> None:
    """Do *run* in a thread and wait for its end; the first interrupt asks for it.

    The end is not waited for without limit after that.
    """
    # A pipe, closed at the end: waiting on it takes no lock that an interrupt could find half held.
    news, at_end = os.pipe()

    def run_and_tell() -> None:
        try:
            run()
        finally:
            os.close(at_end)

    threading.Thread(target=run_and_tell, name="worker", daemon=True).start()
    try:
        while not interrupts.wait(LOOK_UP, news):
            if _has_news(news, 0):
                return
        log.info("worker_interrupted", by=interrupts.first)
        with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
            ask_to_end()
        _has_news(news, END_PATIENCE.total_seconds())
    finally:
        os.close(news)


def _has_news(file: int, seconds: float) -> bool:
    return bool(select.select([file], [], [], seconds)[0])


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
