"""The worker over real websockets into a real lake."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"


def test_every_update_sent_lands_exactly_once(tmp_path: Path, make_settings, run, eventually):
    async def scenario():
        async with FeedServer(generated_market(pace=20), speed=20) as server:
            settings = make_settings(tmp_path, server.url, [BTC, ETH], speed=20)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 100, timeout=30)
            return worker, server

    worker, server = asyncio.run(scenario())
    quotes = worker.table("raw.quotes")

    assert not quotes.select("writer_id", "sequence").is_duplicated().any()
    for symbol in (BTC, ETH):
        sent = [packet.values for packet in server.sent if packet.name == symbol]
        landed = quotes.filter(symbol=symbol)
        # What was sent after the worker's last read is not recorded; everything before it is.
        prices = [values["lp"] for values in sent if "lp" in values][: landed.height]
        carried = landed.filter(pl.col("changed").str.contains("last_price"))["last_price"]
        assert carried.to_list() == prices[: len(carried)]
        assert landed.height > 50
