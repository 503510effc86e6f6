"""Official minutes over a chart session."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lakehouse_pipeline.errors import SymbolError
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest import history
from lakehouse_pipeline.ingest.history import fetch_minutes
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import MINUTE, floor

BTC = "BINANCE:BTCUSDT"


def fetch(make_settings, tmp_path, length: timedelta, symbol: str = BTC):
    market = generated_market()

    async def scenario():
        async with FeedServer(market) as server:
            feed = make_settings(tmp_path, server.url, [BTC]).feed
            since = floor(server.now(), MINUTE) - length
            return since, await fetch_minutes(feed, symbol, since=since, now=server.now)

    since, fetched = asyncio.run(scenario())
    return market, since, fetched


def test_closed_minutes_since_an_instant_agree_with_the_market(
    tmp_path, make_settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history, "PAGE", 50)

    market, since, fetched = fetch(make_settings, tmp_path, timedelta(hours=2))

    assert fetched.ended == "reached"
    assert fetched.bars.schema == HISTORY
    end = fetched.bars["open_time"][-1] + MINUTE
    expected = market.bars(BTC, MINUTE, since, end)
    columns = ["open_time", "open", "high", "low", "close", "volume"]
    assert fetched.bars.select(columns).rows() == expected.select(columns).rows()
    assert fetched.bars.height >= 119
    assert fetched.bars["fetched_at"][0] >= end


def test_the_feeds_limit_is_said(tmp_path, make_settings):
    _, _, fetched = fetch(make_settings, tmp_path, timedelta(days=30))

    assert fetched.ended == "limit"
    assert fetched.bars.height >= 5_000


def test_an_unknown_symbol_is_an_error_of_its_own(tmp_path, make_settings):
    with pytest.raises(SymbolError):
        fetch(make_settings, tmp_path, timedelta(hours=1), "BINANCE:NOPE")
