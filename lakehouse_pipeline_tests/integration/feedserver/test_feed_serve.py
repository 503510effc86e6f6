"""The feed server as a process, and what is recorded from it served again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import AuthError, InputFileError, UsageError
from lakehouse_pipeline.feedserver import Counter, FeedServer, generated_market
from lakehouse_pipeline.feedserver.recorder import record
from lakehouse_pipeline.feedserver.recording import recording_market
from lakehouse_pipeline.feedserver.serve import (
    ServeOptions,
    instant,
    make_market,
    run,
    symbol_files,
)
from lakehouse_pipeline.settings import FeedSettings

BTC, ETH = "BINANCE:BTCUSDT", "OKX:ETHUSDT"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_and_ends_cleanly(number):
    code = (
        "from lakehouse_pipeline.feedserver.serve import ServeOptions, run;"
        f"run(ServeOptions(symbols=({BTC!r},)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    with process:
        lines = [process.stdout.readline().rstrip() for _ in range(2)]
        process.send_signal(number)
        code = process.wait(timeout=20)

    assert lines[0].startswith("LISTENING ws://127.0.0.1:")
    assert lines[1] == lines[0].replace("LISTENING ws", "HTTP http")
    assert code == 0


def test_options_are_read_and_refused():
    assert symbol_files(["A:B=c/d.parquet"]) == {"A:B": Path("c/d.parquet")}
    assert instant("2024-08-09T00:00:00Z") == instant("2024-08-09")
    with pytest.raises(UsageError, match="no SYMBOL=FILE"):
        symbol_files(["A:B"])
    with pytest.raises(UsageError, match="'noonish' is malformed"):
        instant("noonish")
    with pytest.raises(UsageError, match="Market 'stocks' is unknown"):
        make_market(ServeOptions(market="stocks"))
    with pytest.raises(UsageError, match="takes no file"):
        make_market(ServeOptions(market="generated", trades={BTC: Path("x")}))
    with pytest.raises(UsageError, match="Give --recording"):
        make_market(ServeOptions(market="recording"))
    with pytest.raises(UsageError, match="Port was 99999"):
        run(ServeOptions(port=99_999))
    with pytest.raises(UsageError, match="Speed was 0"):
        run(ServeOptions(speed=0))


@pytest.fixture
def recorded(tmp_path, noon, eventually):
    """A recording of two symbols over a break, and the packets the server sent."""
    path = tmp_path / "session.jsonl"

    async def scenario():
        async with FeedServer(generated_market([BTC, ETH]), start=noon, speed=60) as server:
            feed = FeedSettings(url=server.url, connect_interval=timedelta(milliseconds=10))
            stop = asyncio.Event()
            task = asyncio.create_task(record(feed, [BTC, ETH], path, stop=stop, now=server.now))
            await eventually(lambda: len(server.sent) > 40)
            server.drop_clients()
            await eventually(lambda: any(len(p.values) > 15 for p in server.sent[40:]))
            await eventually(lambda: len(server.sent) > 100)
            stop.set()
            await task
            return path, list(server.sent)

    return asyncio.run(scenario())


def test_a_recording_holds_raw_messages_and_marks_connections(recorded):
    path, sent = recorded
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    events = [line["event"] for line in lines if "event" in line]
    assert events == ["opened", "closed", "opened", "closed"]
    assert len({line["session"] for line in lines}) == 2
    texts = [line["text"] for line in lines if "text" in line]
    assert all(text.startswith("~m~") for text in texts)
    quotes = sum('"m":"qsd"' in text for text in texts)
    assert len(sent) - 60 < quotes <= len(sent)


def test_a_recording_is_a_market_with_the_values_and_times_it_had(recorded):
    path, sent = recorded
    market = recording_market(path, [BTC])
    assert market.starts_at is not None
    end = market.starts_at + timedelta(hours=1)

    state = market.snapshot(BTC, end, Counter.SESSION)
    folded = {}
    for update in market.updates(
        BTC, market.starts_at - timedelta(seconds=1), end, Counter.SESSION
    ):
        folded |= update.values
    known = [packet.values["lp"] for packet in sent if packet.name == BTC and "lp" in packet.values]

    assert folded == state
    assert state["lp"] in known
    assert set(market.instruments()) == {BTC}
    assert market.instruments()[BTC].price_scale == 100
    assert len(market.bars(BTC, timedelta(minutes=1), market.starts_at, end)) >= 1


def test_a_recording_moved_in_time_keeps_its_pace(recorded):
    path, _ = recorded
    then = datetime(2027, 1, 1, tzinfo=UTC)
    was, now = recording_market(path), recording_market(path, start=then)
    assert was.starts_at is not None
    assert now.starts_at is not None
    assert timedelta(0) <= now.starts_at - then < timedelta(seconds=1)

    hour = timedelta(hours=1)
    before = was.updates(BTC, was.starts_at, was.starts_at + hour, Counter.SESSION)
    after = now.updates(BTC, now.starts_at, now.starts_at + hour, Counter.SESSION)

    assert [u.at - was.starts_at for u in before] == [u.at - now.starts_at for u in after]
    assert after[0].values["lp_time"] > then.timestamp() - 60


def test_a_recording_can_be_served(recorded, talk):
    path, _ = recorded

    async def scenario():
        async with (
            FeedServer(recording_market(path), speed=20) as server,
            talk(server.url) as client,
        ):
            await client.say("quote_create_session", "qs")
            await client.say("quote_add_symbols", "qs", BTC)
            await client.until("quote_completed")
            return await client.until("qsd", p=lambda p: "lp" in p[1]["v"])

    assert asyncio.run(scenario())[1]["n"] == BTC


def test_a_refused_token_ends_the_recording(tmp_path, noon):
    async def scenario():
        async with FeedServer(generated_market([BTC]), start=noon, tokens=["good"]) as server:
            feed = FeedSettings(url=server.url, token="bad")
            await record(feed, [BTC], tmp_path / "x", stop=asyncio.Event(), now=server.now)

    with pytest.raises(AuthError):
        asyncio.run(scenario())


def test_a_broken_recording_is_told_with_its_line(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"received_at":1,"session":"a","event":"opened"}\n{"rec')

    with pytest.raises(InputFileError, match="line 2"):
        recording_market(path)
