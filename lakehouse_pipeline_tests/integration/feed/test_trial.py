"""`lakehouse doctor` asks for each symbol and tells who gives it, late, or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from websockets.asyncio.server import serve

from lakehouse_pipeline.cli.doctor import _check_symbols
from lakehouse_pipeline.errors import SettingsError
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.faults import Fault
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest.trial import Answer, Verdict, try_symbols
from lakehouse_pipeline.settings import ExchangeSettings, FeedSettings, Settings
from lakehouse_pipeline.tradingview.server_protocol import ServerProtocol

BTC, TYPO = "BINANCE:BTCUSDT", "BINANCE:BTCUSDTT"
SOON = timedelta(seconds=20)


def trial(symbols: list[str], troubles: list[Fault]) -> list[Answer]:
    async def scenario() -> list[Answer]:
        async with FeedServer(generated_market([BTC], seed=7), faults=troubles) as server:
            return await ask(server.url, symbols, SOON)

    return asyncio.run(scenario())


async def ask(url: str, symbols: list[str], patience: timedelta) -> list[Answer]:
    feed = FeedSettings(url=url, connect_interval=timedelta(0))
    return await try_symbols(feed, symbols, patience=patience, now=lambda: datetime.now(UTC))


def test_a_symbol_that_is_not_known_is_refused_in_the_feeds_words():
    given, refused = trial([BTC, TYPO], [])

    assert (given.symbol, given.verdict) == (BTC, Verdict.GIVEN)
    assert (refused.symbol, refused.verdict) == (TYPO, Verdict.REFUSED)
    assert refused.detail


def test_a_delayed_feed_is_told():
    (answer,) = trial([BTC], [faults.Delayed()])

    assert answer == Answer(BTC, Verdict.DELAYED, "delayed_streaming_900")


def test_who_does_not_answer_is_silent_and_costs_no_more_than_the_patience():
    async def greet_and_be_silent(websocket):
        protocol = ServerProtocol()
        protocol.hello(session_id="0.1_mute", now=datetime.now(UTC))
        for text in protocol.texts_to_send():
            await websocket.send(text)
        await websocket.wait_closed()

    async def scenario() -> list[Answer]:
        async with serve(greet_and_be_silent, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await ask(url, [BTC], timedelta(seconds=1))

    assert asyncio.run(scenario()) == [Answer(BTC, Verdict.SILENT)]


def test_doctor_names_the_refused_symbol_and_the_mend(tmp_path):
    async def scenario() -> None:
        async with FeedServer(generated_market([BTC], seed=7)) as server:
            feed = FeedSettings(url=server.url, connect_interval=timedelta(0))
            exchanges = {"BINANCE": ExchangeSettings(symbols=["BTCUSDT", "BTCUSDTT"])}
            nowhere = tmp_path / "exchanges.yaml"
            settings = Settings(config=nowhere, state_dir=tmp_path, feed=feed, exchanges=exchanges)
            with pytest.raises(SettingsError, match="refuses 1 of 2 symbols: BINANCE:BTCUSDTT"):
                await asyncio.to_thread(_check_symbols, settings)

    asyncio.run(scenario())
