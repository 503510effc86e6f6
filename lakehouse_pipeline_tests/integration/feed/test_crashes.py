"""kill -9 at every named point: nothing lost, nothing repeated, every blind second visible."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline_tests.chaos.workers import SPEED, TICKERS, judge, programme, until, victim

SYMBOLS = [f"BINANCE:{ticker}" for ticker in TICKERS]
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


async def dies(process: asyncio.subprocess.Process) -> bool:
    async with asyncio.timeout(60):
        await process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.timeout(240)
def test_a_crash_at_any_named_point_loses_and_repeats_nothing(tmp_path: Path):
    async def scenario():
        async with FeedServer(generated_market(SYMBOLS, pace=20), speed=SPEED) as server:
            one = victim(tmp_path, server.url, "BINANCE")
            for point in POINTS:
                assert await dies(await one.start(point)), point
            output = await one.finish()
            return one, output, server.sent

    one, output, sent = asyncio.run(scenario())

    verdict = judge(one, [packet for packet in sent if "lp" in packet.values])
    assert verdict.is_good, verdict
    assert output.endswith(b"FLUSHED\n")
    assert '"how": "stopped"' in one.log.read_text().splitlines()[-1]
    assert not list((tmp_path / "spool").rglob("*.damaged*"))
    # Each session ended once, the crashed ones at their last durable mark.
    with Lakehouse.open(one.settings) as lake:
        coverage = lake.scan("raw.coverage").collect()
    ended = coverage.filter(kind="ended")
    assert ended["reason"].value_counts().sort("reason").rows() == [
        ("crashed", verdict.sessions - 1),
        ("stopped", 1),
    ]
    for session_id, end in ended.select("session_id", "end").rows():
        alive = coverage.filter(session_id=session_id, kind="alive")["end"]
        assert alive.is_empty() or alive.max() == end


@pytest.mark.timeout(240)
def test_a_crash_while_an_orphan_is_drained_or_a_lease_handed_over_loses_nothing(tmp_path: Path):
    async def scenario():
        async with FeedServer(generated_market(SYMBOLS, pace=20), speed=SPEED) as server:
            one = victim(tmp_path, server.url, "BINANCE")
            for point in ("orphan_committed", "orphan_deleted"):
                # Two side by side leave two spools: the next worker's own, and an orphan.
                pair = await asyncio.gather(one.start("spooled"), one.start("spooled"))
                assert all(await asyncio.gather(*map(dies, pair)))
                assert await dies(await one.start(point)), point
            expired = await one.start("handing_over", lease=timedelta(seconds=1))
            rows = len(one.acknowledged())
            await until(lambda: len(one.acknowledged()) > rows)
            successor = await one.start()
            assert await dies(expired)
            successor.kill()
            await successor.communicate()
            await one.finish()
            return one, server.sent

    one, sent = asyncio.run(scenario())

    verdict = judge(one, [packet for packet in sent if "lp" in packet.values])
    assert verdict.is_good, verdict


@pytest.mark.timeout(240)
def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path):
    verdicts = asyncio.run(programme(tmp_path, kills=6, seed=20_261_122, exchanges=("BINANCE",)))

    assert all(verdict.is_good for verdict in verdicts), verdicts
