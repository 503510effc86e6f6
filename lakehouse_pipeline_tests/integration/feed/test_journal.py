"""Group commit: what becomes durable when, and what is shed when memory is at its limit."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import SpoolFull
from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.journal import Journal
from lakehouse_pipeline.ingest.rows import COVERAGE, QUOTES, Entry, mark
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.market.coverage import Mark


def quote(at: int) -> Entry:
    return QUOTES, ("X:A", at, at, "price", "last_price", 1.0, *[None] * 14, "s")


def entries_of(spool: Spool) -> list:
    return [entry for batch in spool.read(0, 10_000) for entry in batch.entries]


def test_what_is_put_becomes_durable_and_is_counted(tmp_path: Path, eventually):
    status = WorkerStatus.begin("X", "w", "")

    async def scenario():
        spool = Spool.create(tmp_path)
        journal = Journal(spool, status, interval=timedelta(milliseconds=10), max_bytes=1 << 30)
        running = asyncio.create_task(journal.run())
        journal.put([quote(1), quote(2)], session_id="s", at=2)
        await eventually(lambda: journal.last_sequence == 2)
        journal.put([quote(3)], session_id="s", at=3)
        running.cancel()
        await journal.flush()
        journal.close()
        return spool

    spool = asyncio.run(scenario())

    assert len(entries_of(spool)) == 3
    assert status.quotes == 3
    spool.close()


def test_after_a_failed_append_no_later_mark_claims_what_was_lost(tmp_path: Path):
    status = WorkerStatus.begin("X", "w", "")

    async def scenario():
        spool = Spool.create(tmp_path)
        spool.append([mark("s", Mark.OPENED, 0, 0)])
        spool._write.execute("PRAGMA max_page_count = 20")
        journal = Journal(spool, status, interval=timedelta(seconds=1), max_bytes=1 << 30)
        journal.put([quote(at) for at in range(10_000)], session_id="s", at=10_000)
        with pytest.raises(SpoolFull):
            await journal.flush()
        journal.put([mark("s", Mark.ENDED, 10_000, 10_000)], session_id="s", at=10_000)
        with pytest.raises(SpoolFull):
            await journal.flush()
        journal.close()
        return spool

    spool = asyncio.run(scenario())

    assert [row[1] for _, row in entries_of(spool)] == ["opened"]
    assert spool.open_sessions == {"s": 0}
    spool.close()


def test_beyond_its_memory_quotes_are_shed_and_coverage_is_kept(tmp_path: Path):
    status = WorkerStatus.begin("X", "w", "")

    async def scenario():
        spool = Spool.create(tmp_path)
        journal = Journal(
            spool, status, interval=timedelta(seconds=1), max_bytes=1 << 30, max_waiting=2
        )
        for at in range(10, 14):
            journal.put([quote(at)], session_id="s", at=at)
        journal.put([mark("s", Mark.ALIVE, 0, 14)], session_id="s", at=14)
        await journal.flush()
        journal.put([quote(20)], session_id="s", at=20)
        await journal.flush()
        journal.close()
        return spool

    spool = asyncio.run(scenario())
    entries = entries_of(spool)
    spool.close()

    assert [row[2] for target, row in entries if target == QUOTES] == [10, 11, 20]
    marks = [(row[1], row[3], row[4], row[6]) for target, row in entries if target == COVERAGE]
    assert marks == [("alive", 0, 14, None), ("shed", 12, 14, "2")]
    assert status.shed == 2


def test_a_spool_at_its_limit_keeps_the_oldest_and_takes_new_ones_once_there_is_room(
    tmp_path: Path,
):
    """The lake is away, so the file really grows; then it is back and the spool forgets."""
    status = WorkerStatus.begin("X", "w", "")
    limit = 1 << 20

    async def scenario():
        spool = Spool.create(tmp_path)
        journal = Journal(spool, status, interval=timedelta(seconds=1), max_bytes=limit)
        at = 0
        while status.shed == 0:
            at += 1_000
            journal.put([quote(at)] * 1_000, session_id="s", at=at)
            await journal.flush()
        grown = spool.size_bytes()
        spool.forget(1_000)
        await journal.flush()  # the shed mark makes it look at the size again
        spool.forget(2_000)
        journal.put([mark("s", Mark.ALIVE, 0, at)], session_id="s", at=at)
        await journal.flush()
        journal.put([quote(at + 1)], session_id="s", at=at + 1)
        await journal.flush()
        journal.close()
        return spool, at, grown

    spool, at, grown = asyncio.run(scenario())
    entries = [entry for batch in spool.read(0, 1 << 30) for entry in batch.entries]
    spool.close()
    kept = {row[2] for target, row in entries if target == QUOTES}
    shed = [row for target, row in entries if target == COVERAGE and row[1] == "shed"]

    assert limit <= grown < 2 * limit
    assert kept == {*range(3_000, at, 1_000), at + 1}
    assert [(row[3], row[4], row[6]) for row in shed] == [(at, at + 1, "1000")]
