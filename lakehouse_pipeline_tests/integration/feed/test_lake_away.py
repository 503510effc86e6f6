"""A worker whose lake or disk fails: no row is lost, and it is back, or says why it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse_pipeline.errors import SpoolFull
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest.rows import QUOTES
from lakehouse_pipeline.ingest.spool import SUFFIX, Spool
from lakehouse_pipeline.ingest.supervision import failures
from lakehouse_pipeline.market.gaps import Cause, find_gaps
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.settings import LakeSettings
from lakehouse_pipeline_tests.seaweed import SeaweedFS, find_weed

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
SPEED = 60.0
OUTAGE = timedelta(minutes=10)  # of feed time


def assert_every_price_landed(quotes: pl.DataFrame, server: FeedServer) -> None:
    """Compare the prices of the first session with those the server says it sent."""
    assert not quotes.select("writer_id", "sequence").is_duplicated().any()
    session = quotes.sort("received_at", "sequence")["session_id"][0]
    name = server.sent[0].session
    for symbol in (BTC, ETH):
        told = [
            packet.values["lp"]
            for packet in server.sent
            if (packet.session, packet.name) == (name, symbol) and "lp" in packet.values
        ]
        landed = quotes.filter(
            pl.col("session_id") == session,
            pl.col("symbol") == symbol,
            pl.col("changed").str.contains("last_price"),
        ).sort("sequence")["last_price"]
        assert len(landed) > 3
        assert landed.to_list() == told[: len(landed)]


def assert_never_noticed(coverage: pl.DataFrame) -> None:
    """One session to its orderly end, and nothing shed."""
    assert coverage.filter(kind="ended")["reason"].to_list() == ["stopped"]
    assert coverage.filter(kind="shed").is_empty()


def connect_to_catalog(folder: Path) -> sqlite3.Connection:
    (catalog,) = folder.rglob("catalog.db")
    return sqlite3.connect(catalog, isolation_level=None)


def test_a_catalog_locked_for_ten_minutes_costs_no_row_and_no_second(
    tmp_path: Path, market, make_settings, run, eventually
):
    """Another process's transaction stays open on the catalog."""

    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC, ETH], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 50, timeout=30)
                with contextlib.closing(connect_to_catalog(tmp_path)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    held = await away(server, worker, eventually)
                    other.execute("ROLLBACK")
                await back(worker, held, eventually)
            return worker, server, held

    worker, server, held = asyncio.run(scenario())

    assert held > 300
    assert_every_price_landed(worker.table("raw.quotes"), server)
    assert_never_noticed(worker.table("raw.coverage"))


@pytest.mark.full
@pytest.mark.timeout(300)
def test_an_object_store_stopped_for_ten_minutes_costs_no_row_and_no_second(
    tmp_path: Path, market, make_settings, run, eventually
):
    weed = find_weed()
    if weed is None:
        pytest.skip("no SeaweedFS is installed")
    (tmp_path / "store").mkdir()
    store = SeaweedFS(weed, tmp_path / "store")

    async def scenario():
        store.start()
        await eventually(lambda: store.is_up, timeout=60)
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path / "state", server.url, [BTC, ETH], speed=SPEED)
            lake = LakeSettings(warehouse="s3://lake/warehouse", properties=store.storage)
            settings = settings.model_copy(update={"lake": lake})
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 50, timeout=90)
                store.stop()
                held = await away(server, worker, eventually)
                said = worker.status.lake_error
                store.start()
                await back(worker, held, eventually)
            tables = {name: worker.table(f"raw.{name}") for name in ("quotes", "coverage")}
            return server, held, said, tables

    try:
        server, held, said, tables = asyncio.run(scenario())
    finally:
        store.stop()

    assert held > 300
    assert said
    assert_every_price_landed(tables["quotes"], server)
    assert_never_noticed(tables["coverage"])


async def away(server: FeedServer, worker: Any, eventually: Any) -> int:
    """Let the outage last; return how many entries are waiting at its end."""
    began = server.now()
    await eventually(lambda: server.now() - began > OUTAGE, timeout=60)
    return int(worker.status.pending)


async def back(worker: Any, held: int, eventually: Any) -> None:
    """Wait until all that waited is in the lake and nothing is said against it."""
    before = worker.quotes_committed
    # Some of what is held is coverage, whose marks merge.
    await eventually(lambda: worker.quotes_committed >= before + held // 2, timeout=120)
    await eventually(lambda: worker.status.lake_error == "", timeout=120)


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte for the spools of a state folder; skips where mounting is refused."""
    folder = tmp_path / "state" / "spool"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_stops_the_worker_loudly_and_keeps_its_spool(
    tmp_path: Path, small_disk: Path, market, make_settings, run, eventually
):
    state = tmp_path / "state"

    async def record_until_full(settings):
        async with run(settings) as worker:
            await eventually(lambda: worker.status.quotes > 20, timeout=30)
            fill(small_disk / "ballast")
            await eventually(lambda: worker.status.ended, timeout=60)

    async def scenario():
        async with FeedServer(market, speed=8.0) as server:
            settings = make_settings(
                state,
                server.url,
                [BTC, ETH],
                speed=8.0,
                ingest={"commit_interval": timedelta(hours=1)},
            )
            with pytest.raises(SpoolFull, match="full"):
                await record_until_full(settings)
            durable = durable_quotes(small_disk)
            (small_disk / "ballast").unlink()
            async with run(settings) as worker:
                await eventually(lambda: worker.status.quotes > 20, timeout=30)
            return server, durable, worker

    server, durable, worker = asyncio.run(scenario())
    quotes, coverage = worker.table("raw.quotes"), worker.table("raw.coverage")

    assert "full" in failures(state, "BINANCE", datetime.now(UTC))[-1].reason
    assert len(durable) > 20
    assert durable <= set(quotes.select("writer_id", "sequence").rows())
    assert_every_price_landed(quotes, server)
    ended = coverage.filter(kind="ended").sort("end")
    assert ended["reason"].to_list() == ["crashed", "stopped"]  # no room was left for a goodbye
    span = TimeWindow(coverage["start"].min(), coverage["end"].max())
    gaps = find_gaps(quotes, coverage, span, span.end)
    for symbol in (BTC, ETH):
        (gap,) = gaps.filter(symbol=symbol, cause=Cause.WORKER_DOWN).rows(named=True)
        assert gap["start"] <= ended["end"][0] <= gap["end"]


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def durable_quotes(folder: Path) -> set[tuple[str, int]]:
    """Return the identities of the quotes in the one spool of *folder*, all of it readable."""
    (path,) = folder.rglob(f"*{SUFFIX}")
    with contextlib.closing(Spool(path)) as spool:
        spool.check()
        return {
            (spool.writer_id, batch.first + index)
            for batch in spool.read(0, 1 << 30)
            for index, (target, _) in enumerate(batch.entries)
            if target == QUOTES
        }
