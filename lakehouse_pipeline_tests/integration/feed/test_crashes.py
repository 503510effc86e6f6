"""kill -9 at every named point: nothing lost, nothing repeated, every blind second visible."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import Settings

SYMBOLS = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]
SCRIPT = Path(__file__).with_name("crashing_worker.py")
SPEED = 20.0
POINTS = (
    "received",
    "spooled",
    "before_commit",
    "parquet_written",
    "recovering",
    "after_quotes",
    "after_coverage",
    "before_forgetting",
)


async def start(settings: Settings, ledger: Path, point: str) -> asyncio.subprocess.Process:
    with ledger.with_name("log.txt").open("a") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            settings.model_dump_json(),
            str(ledger),
            point,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )


async def finish_cleanly(settings: Settings, ledger: Path, eventually) -> None:
    """One more worker, which drains what the others left; interrupted twice, it still flushes."""
    log = ledger.with_name("log.txt")
    before = len(acknowledged(ledger))
    process = await start(settings, ledger, "never")
    await eventually(lambda: len(acknowledged(ledger)) > before, timeout=30)
    process.send_signal(signal.SIGTERM)
    await eventually(lambda: '"again": false' in log.read_text())
    process.send_signal(signal.SIGTERM)
    output, _ = await process.communicate()
    assert output.endswith(b"FLUSHED\n")
    assert '"how": "stopped"' in log.read_text().splitlines()[-1]


def acknowledged(ledger: Path) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the quotes the spool has acknowledged to any worker so far."""
    if not ledger.exists():
        return {}
    return {
        (writer_id, sequence): (price, volume)
        for line in ledger.read_text().splitlines()
        if line.endswith("]")  # a worker killed while writing leaves half a line
        for writer_id, quotes in [json.loads(line)]
        for sequence, price, volume in quotes
    }


def landed(settings: Settings) -> tuple[pl.DataFrame, pl.DataFrame]:
    with Lakehouse.open(settings) as lake:
        return lake.scan("raw.quotes").collect(), lake.scan("raw.coverage").collect()


def assert_nothing_lost_or_repeated(settings: Settings, ledger: Path) -> pl.DataFrame:
    quotes, coverage = landed(settings)
    identities = quotes.select("writer_id", "sequence").rows()
    assert len(set(identities)) == len(identities), "a row was repeated"
    values = quotes.select("last_price", "cumulative_volume").rows()
    rows = dict(zip(identities, values, strict=True))
    promised = acknowledged(ledger)
    assert promised.keys() - rows.keys() == set(), "an acknowledged row was lost"
    assert {key: rows[key] for key in promised} == promised
    assert not list((settings.state_dir / "spool").rglob("*.damaged*"))
    return coverage


@pytest.mark.timeout(240)
def test_a_crash_at_any_named_point_loses_and_repeats_nothing(
    tmp_path: Path, make_settings, eventually
):
    ledger = tmp_path / "ledger.jsonl"

    async def scenario():
        async with FeedServer(generated_market(SYMBOLS, pace=20), speed=SPEED) as server:
            settings = make_settings(
                tmp_path, server.url, SYMBOLS, speed=SPEED, ingest={"commit_interval": "PT0.4S"}
            )
            for point in POINTS:
                process = await start(settings, ledger, point)
                assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL, point
            await finish_cleanly(settings, ledger, eventually)
            return settings

    settings = asyncio.run(scenario())
    coverage = assert_nothing_lost_or_repeated(settings, ledger)

    # Each session ended once, the crashed ones at their last durable mark.
    opened = coverage.filter(kind="opened")["session_id"]
    ended = coverage.filter(kind="ended")
    assert sorted(ended["session_id"]) == sorted(opened)
    assert ended["reason"].value_counts().sort("reason").rows() == [
        ("crashed", len(opened) - 1),
        ("stopped", 1),
    ]
    for session_id, end in ended.select("session_id", "end").rows():
        alive = coverage.filter(session_id=session_id, kind="alive")["end"]
        assert alive.is_empty() or alive.max() == end


@pytest.mark.timeout(240)
def test_a_kill_at_random_moments_loses_and_repeats_nothing(
    tmp_path: Path, make_settings, eventually
):
    seed = 20_261_122
    chance = random.Random(seed)
    ledger = tmp_path / "ledger.jsonl"

    async def scenario():
        async with FeedServer(generated_market(SYMBOLS, pace=20), speed=SPEED) as server:
            settings = make_settings(
                tmp_path, server.url, SYMBOLS, speed=SPEED, ingest={"commit_interval": "PT0.2S"}
            )
            for _ in range(4):
                enough = len(acknowledged(ledger)) + chance.randrange(1, 200)
                process = await start(settings, ledger, "never")
                await eventually(lambda at=enough: len(acknowledged(ledger)) > at, timeout=40)
                process.kill()
                await process.wait()
            await finish_cleanly(settings, ledger, eventually)
            return settings

    settings = asyncio.run(scenario())
    assert_nothing_lost_or_repeated(settings, ledger)
