"""Official bars over chart sessions of one connection."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from lakehouse_pipeline.errors import EntitlementError, SymbolError, TransportError
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest import history
from lakehouse_pipeline.ingest.clock import WallClock
from lakehouse_pipeline.ingest.history import open_history
from lakehouse_pipeline.ingest.limiter import ConnectLimiter
from lakehouse_pipeline.market.repair import Ended
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import MINUTE, SECOND, floor
from lakehouse_pipeline.settings import HistorySettings
from lakehouse_pipeline_tests.integration.feed.identity import jwt

BTC, ETH, NOPE = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT", "BINANCE:NOPE"
COLUMNS = ["open_time", "open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def market():
    return generated_market([BTC, ETH])


@pytest.fixture
def talk(market, make_settings, tmp_path):
    """Run ``scenario(history feed, server)`` against a server of *market*."""

    def run(scenario, *, pace: timedelta = timedelta(0), token: str | None = None, **options):
        async def serve():
            async with FeedServer(market, **options) as server:
                feed = make_settings(tmp_path, server.url, [BTC]).feed
                feed = feed.model_copy(update={"token": SecretStr(token) if token else None})
                limiter = ConnectLimiter(tmp_path / "limits", timedelta(0))
                asked = open_history(
                    feed, HistorySettings(pace=pace), clock=WallClock(), limiter=limiter
                )
                async with asked as opened:
                    return await scenario(opened, server)

        return asyncio.run(serve())

    return run


def test_settled_minutes_since_an_instant_agree_with_the_market(
    talk, market, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history, "PAGE", 50)

    async def scenario(feed, server):
        since = floor(server.now(), MINUTE) - timedelta(hours=2)
        return since, await feed.fetch(BTC, since)

    since, fetched = talk(scenario)

    assert (fetched.ended, fetched.reached) == (Ended.REACHED, since)
    assert fetched.bars.schema == HISTORY
    assert fetched.until == fetched.bars["open_time"][-1] + MINUTE
    expected = market.bars(BTC, MINUTE, since, fetched.until)
    assert fetched.bars.select(COLUMNS).rows() == expected.select(COLUMNS).rows()
    assert fetched.bars.height >= 119
    assert fetched.bars["fetched_at"][0] >= fetched.until


def test_history_of_three_megabytes_a_message_is_the_same(talk, market):
    async def scenario(feed, server):
        since = floor(server.now(), MINUTE) - timedelta(hours=2)
        return since, await feed.fetch(BTC, since)

    since, fetched = talk(scenario, faults=[faults.Bulky(size=3_000_000)])

    assert fetched.ended == Ended.REACHED
    expected = market.bars(BTC, MINUTE, since, fetched.until)
    assert fetched.bars.select(COLUMNS).rows() == expected.select(COLUMNS).rows()
    assert fetched.bars.height >= 119


def test_a_token_whose_time_is_over_does_not_keep_history_away(talk):
    over = jwt(datetime.now(UTC) - timedelta(seconds=1))

    async def scenario(feed, server):
        return await feed.fetch(BTC, floor(server.now(), MINUTE) - timedelta(hours=1))

    fetched = talk(scenario, token=over, tokens=["another"])

    assert fetched.ended == Ended.REACHED


def test_the_feeds_limit_is_said_and_how_far_it_reached(talk):
    async def scenario(feed, server):
        return await feed.fetch(BTC, server.now() - timedelta(days=30))

    fetched = talk(scenario)

    assert fetched.ended == Ended.LIMIT
    assert fetched.reached == fetched.bars["open_time"][0]
    assert 5_000 <= fetched.bars.height < 6_000


def test_one_connection_serves_symbols_one_after_the_other(talk):
    async def scenario(feed, server):
        since = floor(server.now(), MINUTE) - timedelta(minutes=30)
        refused = None
        first = await feed.fetch(BTC, since)
        try:
            await feed.fetch(NOPE, since)
        except SymbolError as error:
            refused = str(error)
        return first, refused, await feed.fetch(ETH, since)

    first, refused, last = talk(scenario)

    assert "BINANCE:NOPE" in refused
    assert set(first.bars["symbol"]) == {BTC}
    assert set(last.bars["symbol"]) == {ETH}
    assert first.bars.height >= 29
    assert last.bars.height >= 29


def test_seconds_are_for_those_whose_plan_includes_them(talk):
    async def scenario(feed, server):
        since = floor(server.now(), MINUTE) - timedelta(minutes=2)
        with pytest.raises(EntitlementError, match="BINANCE:BTCUSDT"):
            await feed.fetch(BTC, since, step=SECOND)
        return await feed.fetch(BTC, since)

    assert talk(scenario).bars.height >= 1


def test_a_lost_connection_is_told_to_whoever_asks_next(talk):
    async def scenario(feed, server):
        server.drop_clients()
        for _ in range(2):
            with pytest.raises(TransportError):
                await feed.fetch(BTC, server.now() - timedelta(minutes=5))

    talk(scenario)


def test_requests_are_at_least_the_pace_apart(talk):
    pace = timedelta(seconds=0.2)

    async def scenario(feed, server):
        since = floor(server.now(), MINUTE) - timedelta(minutes=3)
        await feed.fetch(BTC, since)
        first = server.now()
        await feed.fetch(ETH, since)
        await feed.fetch(BTC, since)
        return server.now() - first

    assert talk(scenario, pace=pace) > pace
