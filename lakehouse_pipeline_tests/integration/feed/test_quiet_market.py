"""A day of a market that is silent most of the time, through a real server and a real worker.

A day takes as long as its work: see ``jumping``.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline_tests.integration.feed.jumping import JumpingLoop

START = datetime(2026, 3, 2, tzinfo=UTC)
SYMBOLS = [f"BINANCE:{base}USDT" for base in ("BTC", "ETH", "SOL", "XRP", "DOGE")]
PACE = 0.005  # of the generated market's trades: about 60 % of a symbol's minutes have none
SPEED = 600.0  # feed seconds a second of the loop's time


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_day_of_a_quiet_market_has_no_outage_and_no_reconnect(
    tmp_path: Path, jumping_loop: JumpingLoop, make_settings, run
):
    market = generated_market(SYMBOLS, pace=PACE)

    async def scenario() -> tuple[Any, FeedServer]:
        async with FeedServer(market, start=START, speed=SPEED) as server:
            settings = make_settings(
                tmp_path,
                server.url,
                SYMBOLS,
                speed=SPEED,
                silence=timedelta(seconds=22),
                ingest={"commit_interval": timedelta(seconds=10)},
            )
            async with run(settings) as worker:
                rest = START + timedelta(days=1, minutes=1) - server.now()
                await asyncio.sleep(rest.total_seconds() / SPEED)
            return worker, server

    worker, server = jumping_loop.run_until_complete(scenario())
    quotes, coverage = worker.table("raw.quotes"), worker.table("raw.coverage")

    traded = quotes.filter(pl.col("kind").is_in(["price", "volume", "time"]))
    minutes = traded.select("symbol", pl.col("event_time").dt.truncate("1m")).unique()
    assert 0.5 < 1 - minutes.height / (1_440 * len(SYMBOLS)) < 0.7
    assert worker.status.sessions == 1
    assert coverage.filter(kind="opened").height == 1
    assert coverage.filter(kind="ended")["reason"].to_list() == ["stopped"]
    assert coverage.filter(pl.col("kind").is_in(["stalled", "shed"])).is_empty()
    alive = coverage.filter(kind="alive").sort("start")
    assert (alive["start"][1:] == alive["end"][:-1]).all()
    day = TimeWindow(coverage.filter(kind="subscribed")["start"].max(), START + timedelta(days=1))
    assert day.length > timedelta(hours=23, minutes=30)
    gaps = find_gaps(quotes, coverage, day, alive["end"][-1] - timedelta(seconds=5))
    assert gaps.is_empty(), gaps
    for symbol in SYMBOLS:
        told = [p.values["lp"] for p in server.sent if p.name == symbol and "lp" in p.values]
        landed = quotes.filter(
            pl.col("symbol") == symbol, pl.col("changed").str.contains("last_price")
        ).sort("sequence")["last_price"]
        assert landed.to_list() == told[: len(landed)]
        assert len(told) - len(landed) <= 3
