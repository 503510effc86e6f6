"""Each fault as a client meets it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
import websockets

from lakehouse_pipeline.feedserver import FeedServer, generated_market
from lakehouse_pipeline.feedserver import fault_kinds as kinds

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
MARKET = generated_market([BTC, ETH])
SPEED = 50.0


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def watch(talk, noon):
    """Serve with faults and return the raw texts and packets of one client."""

    def run(*faults, until=None, messages=60):
        async def scenario():
            async with (
                FeedServer(MARKET, start=noon, speed=SPEED, faults=faults) as server,
                talk(server.url) as client,
            ):
                await client.say("quote_create_session", "qs")
                await client.say("quote_add_symbols", "qs", BTC, ETH)
                texts = []
                try:
                    while len(texts) < messages and (until is None or server.now() < noon + until):
                        texts.append(await asyncio.wait_for(client.socket.recv(), 10))
                except websockets.ConnectionClosed:
                    texts.append("closed")
                return texts, list(server.sent)

        return asyncio.run(scenario())

    return run


def quotes(texts):
    return [text for text in texts if '"m":"qsd"' in text]


def test_a_drop_cuts_who_is_connected_and_lets_who_comes_again_stay(talk, noon):
    faults = [kinds.Drop(at=seconds(20))]

    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=SPEED, faults=faults) as server:
            async with talk(server.url) as client:
                await client.closed()
            cut = server.now() - noon
            async with talk(server.url) as client:
                for _ in range(4):
                    await client.heartbeat()
            return cut

    assert asyncio.run(scenario()) >= seconds(20)


def test_silence_leaves_the_link_open_without_a_word(talk, noon):
    async def scenario():
        faults = [kinds.Silence(at=seconds(5))]
        async with FeedServer(MARKET, start=noon, speed=SPEED, faults=faults) as server:
            async with talk(server.url) as client:

                async def read_on():
                    while True:
                        await client.next()

                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(read_on(), 1.5)
                assert client.socket.state is websockets.State.OPEN
                assert "~h~1" not in client.seen
            async with talk(server.url) as client:
                assert await client.heartbeat() == "~h~1"

    asyncio.run(scenario())


def test_without_data_there_are_heartbeats_only_and_then_what_was_missed(watch):
    fault = kinds.NoData(at=seconds(2), lasts=seconds(60))
    texts, sent = watch(fault, messages=40)

    last_quote = None
    beats_between = 0
    longest = 0
    for text in texts:
        if "~h~" in text:
            beats_between += 1
        elif '"m":"qsd"' in text:
            longest = max(longest, beats_between)
            beats_between, last_quote = 0, text
    assert longest >= 5
    assert last_quote is not None
    resumed = next(
        packet for packet in sent if len(packet.values) > 6 and "type" not in packet.values
    )
    assert {"lp", "volume", "bid"} <= set(resumed.values)


def test_a_frozen_symbol_stands_still_while_others_move(watch):
    texts, _ = watch(kinds.Frozen(symbols=[BTC]), messages=40)

    assert sum(BTC in text for text in quotes(texts)) == 1
    assert sum(ETH in text for text in quotes(texts)) > 10


@pytest.mark.parametrize("status", [403, 429])
def test_refused_handshakes_carry_their_status(talk, noon, eventually, status):
    async def scenario():
        faults = [kinds.Refuse(status=status, lasts=seconds(25))]
        async with FeedServer(MARKET, start=noon, speed=SPEED, faults=faults) as server:
            with pytest.raises(websockets.InvalidStatus, match=str(status)):
                async with talk(server.url):
                    pass
            await eventually(lambda: server.now() > noon + seconds(25))
            async with talk(server.url) as client:
                assert "session_id" in await client.next()

    asyncio.run(scenario())


def test_a_ban_is_told_before_the_connection_closes(watch):
    texts, _ = watch(kinds.Ban(at=seconds(5)))

    assert texts[-1] == "closed"
    assert '{"m":"protocol_error","p":["banned by ip"]}' in texts[-2]


def test_texts_are_struck_as_often_as_asked_and_the_same_way_each_time(watch):
    garbage, _ = watch(kinds.Garbage(share=0.5))
    wrong, _ = watch(kinds.WrongLength(share=0.5))
    unknown, _ = watch(kinds.Unknown(share=0.5))

    assert 5 < sum(text == kinds.Garbage.text for text in garbage) < 35
    lengths = [int(text.split("~m~")[1]) - len(text.split("~m~", 2)[2]) for text in wrong]
    assert set(lengths) == {0, 3}
    assert any("weather_update" in text for text in unknown)


def test_duplicates_come_twice(watch):
    texts, _ = watch(kinds.Duplicate(share=1.0))

    seen = quotes(texts)
    counts = Counter(seen)
    counts.pop(seen[-1])  # the watch may have ended between the two
    assert set(counts.values()) == {2}


def test_values_can_be_null_or_the_sentinel(watch):
    nulls, sent = watch(kinds.BadValues(fields=["lp"], value=None, share=1.0), messages=20)
    assert all(packet.values["lp"] is None for packet in sent if "lp" in packet.values)
    assert any('"lp":null' in text for text in nulls)

    sentinel, _ = watch(kinds.BadValues(fields=["volume"], value=1e100, share=1.0), messages=20)
    assert any('"volume":1e' in text for text in sentinel)


def test_volume_can_go_backwards(watch):
    _, sent = watch(kinds.VolumeBackwards(share=0.3), messages=80)

    volumes = [
        packet.values["volume"]
        for packet in sent
        if "volume" in packet.values and packet.name == BTC
    ]
    assert any(after < before for before, after in pairwise(volumes))


def test_a_delayed_feed_says_so_and_is_late(watch, noon):
    _, sent = watch(kinds.Delayed(at=seconds(10)), until=seconds(60), messages=500)

    modes = [packet.values["update_mode"] for packet in sent if "update_mode" in packet.values]
    assert modes == ["streaming"] * 2 + ["delayed_streaming_900"] * 2
    delayed = [
        packet for packet in sent if packet.at > noon + seconds(12) and "lp_time" in packet.values
    ]
    assert delayed
    for packet in delayed:
        assert 895 < packet.at.timestamp() - packet.values["lp_time"] < 1_000
