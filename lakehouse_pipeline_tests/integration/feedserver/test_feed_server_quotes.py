"""Quote sessions over a real websocket, as published clients use them."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import timedelta

import pytest
import websockets

from lakehouse_pipeline.errors import PortInUse
from lakehouse_pipeline.feedserver import FeedServer, generated_market

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
MARKET = generated_market([BTC, ETH])


def test_the_hello_comes_unasked_and_carries_market_time(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            hello = await client.next()

        assert "m" not in hello
        assert hello["protocol"] == "json"
        assert 0 <= hello["timestampMs"] / 1000 - noon.timestamp() < 60
        assert hello["timestamp"] == hello["timestampMs"] // 1000

    asyncio.run(scenario())


def test_heartbeats_are_alone_in_their_message_and_count_from_one(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=100) as server, talk(server.url) as client:
            beats = [await client.heartbeat() for _ in range(3)]
            now = server.now()

        assert beats == ["~h~1", "~h~2", "~h~3"]
        assert now - noon >= timedelta(seconds=30)

    asyncio.run(scenario())


def test_a_subscription_gives_the_full_snapshot_then_completed_then_changes(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=20) as server, talk(server.url) as client:
            await client.say("set_auth_token", "unauthorized_user_token")
            await client.say("quote_create_session", "qs_1")
            await client.say("quote_add_symbols", "qs_1", BTC)
            first = await client.until("qsd")
            completed = await client.until("quote_completed")
            updates = [await client.until("qsd") for _ in range(20)]
            sent = list(server.sent)
        return first, completed, updates, sent

    first, completed, updates, sent = asyncio.run(scenario())

    assert first[0] == "qs_1"
    assert (first[1]["n"], first[1]["s"]) == (BTC, "ok")
    assert {"lp", "lp_time", "volume", "ch", "chp", "pro_name", "bid", "open_price"} <= set(
        first[1]["v"]
    )
    assert completed == ["qs_1", BTC]
    assert all(len(update[1]["v"]) < 9 for update in updates)
    received = [first[1]["v"], *(update[1]["v"] for update in updates)]
    assert [packet.values for packet in sent][: len(received)] == received


def test_only_the_fields_asked_for_are_sent(talk, noon):
    async def scenario(*fields):
        async with FeedServer(MARKET, start=noon, speed=20) as server, talk(server.url) as client:
            await client.say("quote_create_session", "qs_1")
            await client.say("quote_set_fields", "qs_1", *fields)
            await client.say("quote_add_symbols", "qs_1", BTC)
            first = await client.until("qsd")
            later = [await client.until("qsd") for _ in range(5)]
        return set(first[1]["v"]), {key for update in later for key in update[1]["v"]}

    assert asyncio.run(scenario("lp")) == ({"lp", "pro_name"}, {"lp"})
    assert asyncio.run(scenario(["lp", "bid"]))[0] == {"lp", "bid", "pro_name"}


@pytest.mark.parametrize(
    "key",
    [
        f'={{"session":"regular","symbol":"{BTC}"}}',
        f'={{"adjustment": "splits", "symbol": "{BTC}"}}',
    ],
)
def test_the_key_subscribed_with_is_echoed_verbatim(talk, noon, key):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=20) as server, talk(server.url) as client:
            await client.say("quote_create_session", "qs_1")
            await client.say("quote_add_symbols", "qs_1", BTC, key, {"flags": ["force_permission"]})
            completed = [(await client.until("quote_completed"))[1] for _ in range(2)]
            later = {(await client.until("qsd"))[1]["n"] for _ in range(20)}

        assert completed == [BTC, key]
        assert later == {BTC, key}

    asyncio.run(scenario())


def test_an_unknown_symbol_is_told_and_the_others_go_on(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=20) as server, talk(server.url) as client:
            await client.say("quote_create_session", "qs_1")
            await client.say("quote_add_symbols", "qs_1", "NO:SUCH", BTC)
            refused = await client.until("qsd")
            completed = await client.until("quote_completed")
            other = await client.until("qsd")

        assert refused[1] == {"n": "NO:SUCH", "s": "error", "errmsg": "no_such_symbol", "v": {}}
        assert completed == ["qs_1", "NO:SUCH"]
        assert other[1]["n"] == BTC

    asyncio.run(scenario())


def test_hibernation_unknown_methods_and_bare_text_change_nothing(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=20) as server, talk(server.url) as client:
            await client.say("quote_create_session", "qs_1")
            await client.say("quote_add_symbols", "qs_1", BTC)
            await client.say("quote_fast_symbols", "qs_1", BTC)
            await client.say("quote_hibernate_all", "qs_1")
            await client.say("dance", "tango")
            await client.socket.send("2")
            await client.say("quote_add_symbols", "qs_1", ETH)
            await client.until("quote_completed", p=lambda p: p[1] == ETH)
            names = {(await client.until("qsd"))[1]["n"] for _ in range(20)}

        assert names == {BTC, ETH}

    asyncio.run(scenario())


def test_a_removed_symbol_and_a_deleted_session_are_quiet(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=20) as server, talk(server.url) as client:
            for session in ("qs_1", "qs_2"):
                await client.say("quote_create_session", session)
                await client.say("quote_add_symbols", session, BTC, ETH)
            await client.say("quote_delete_session", "qs_1")
            await client.say("quote_remove_symbols", "qs_2", BTC)
            await client.say("quote_add_symbols", "qs_2", "NO:SUCH")
            await client.until("quote_completed", p=lambda p: p[1] == "NO:SUCH")
            later = [await client.until("qsd") for _ in range(10)]

        assert {(update[0], update[1]["n"]) for update in later} == {("qs_2", ETH)}

    asyncio.run(scenario())


def test_binary_messages_and_several_packets_in_one_are_understood(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            create = '{"m":"quote_create_session","p":["qs_1"]}'
            add = json.dumps({"m": "quote_add_symbols", "p": ["qs_1", BTC]})
            text = f"~m~{len(create)}~m~{create}~m~{len(add)}~m~{add}~m~4~m~~h~1"
            await client.socket.send(text.encode())
            completed = await client.until("quote_completed")

        assert completed == ["qs_1", BTC]

    asyncio.run(scenario())


def test_a_bad_token_is_told_and_the_connection_closed(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, tokens=["secret"]) as server:
            async with talk(server.url) as client:
                await client.say("set_auth_token", "wrong")
                refused = await client.until("protocol_error")
                await client.closed()
            async with talk(server.url) as client:
                await client.say("set_auth_token", "secret")
                await client.say("quote_create_session", "qs_1")
                await client.say("quote_add_symbols", "qs_1", BTC)
                await client.until("quote_completed")
        return refused

    assert asyncio.run(scenario()) == ["bad auth token"]


def test_malformed_packets_close_the_connection(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url) as client:
            await client.socket.send("~m~7~m~{broken")
            refused = await client.until("protocol_error")
            await client.closed()
        return refused

    assert asyncio.run(scenario()) == ["wrong data"]


def test_speed_and_echoes_do_not_end_a_client_that_never_echoes(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, speed=500) as server, talk(server.url) as client:
            return [await client.heartbeat() for _ in range(20)][-1]

    assert asyncio.run(scenario()) == "~h~20"


def test_a_strict_server_drops_a_peer_that_never_echoes(talk, noon):
    async def scenario():
        async with (
            FeedServer(MARKET, start=noon, speed=100, strict=True) as server,
            talk(server.url, origin="https://www.tradingview.com") as client,
        ):
            await client.closed()
            return [packet for packet in client.seen if isinstance(packet, str)]

    assert asyncio.run(scenario())[0] == "~h~1"


def test_a_strict_server_refuses_flags_and_foreign_origins(talk, noon):
    async def scenario():
        async with FeedServer(MARKET, start=noon, strict=True) as server:
            async with talk(server.url, origin="https://data.tradingview.com") as client:
                await client.say("quote_create_session", "qs_1")
                await client.say("quote_add_symbols", "qs_1", BTC, {"flags": []})
                refused = await client.until("critical_error")
            with pytest.raises(websockets.InvalidStatus, match="403"):
                async with talk(server.url):
                    pass
        return refused

    assert asyncio.run(scenario()) == ["qs_1", "invalid_parameters", "quote_add_symbols"]


def test_compression_is_offered_unless_switched_off(talk, noon):
    async def extensions(*, deflate):
        async with (
            FeedServer(MARKET, start=noon, deflate=deflate) as server,
            talk(server.url) as client,
        ):
            return client.socket.response.headers.get("Sec-WebSocket-Extensions")

    assert "permessage-deflate" in asyncio.run(extensions(deflate=True))
    assert asyncio.run(extensions(deflate=False)) is None


@pytest.mark.parametrize(
    "path", ["", "/", "/socket.io/websocket", "/socket.io/websocket?from=chart%2F&date=&x=1"]
)
def test_any_path_and_query_connects(talk, noon, path):
    async def scenario():
        async with FeedServer(MARKET, start=noon) as server, talk(server.url, path) as client:
            assert "session_id" in await client.next()

    asyncio.run(scenario())


def test_two_origin_headers_are_accepted(noon):
    request = (
        "GET /socket.io/websocket HTTP/1.1\r\nHost: data.tradingview.com\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Origin: https://www.tradingview.com\r\nOrigin: http://127.0.0.1\r\n\r\n"
    )

    async def scenario():
        async with FeedServer(MARKET, start=noon) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request.encode())
            status = await reader.readline()
            greeting = await reader.readuntil(b"session_id")
            writer.close()
            await writer.wait_closed()
        return status, greeting

    status, greeting = asyncio.run(scenario())
    assert status.startswith(b"HTTP/1.1 101")
    assert b"~m~" in greeting


def test_two_clients_see_the_same_updates_under_their_own_sessions(talk, noon):
    async def scenario():
        async with (
            FeedServer(MARKET, start=noon, speed=20) as server,
            talk(server.url) as one,
            talk(server.url) as other,
        ):
            for client, session in ((one, "qs_a"), (other, "qs_b")):
                await client.say("quote_create_session", session)
                await client.say("quote_add_symbols", session, BTC)
                await client.until("quote_completed")
            first = [await one.until("qsd") for _ in range(15)]
            second = [await other.until("qsd") for _ in range(15)]
        return first, second

    first, second = asyncio.run(scenario())
    assert {update[0] for update in first} == {"qs_a"}
    assert {update[0] for update in second} == {"qs_b"}
    later = list(itertools.dropwhile(lambda update: update[1] != second[0][1], first))
    assert later
    assert [update[1] for update in later] == [update[1] for update in second][: len(later)]


def test_a_taken_port_is_told(noon):
    async def scenario():
        async with (
            FeedServer(MARKET, start=noon) as server,
            FeedServer(MARKET, start=noon, port=server.port),
        ):
            pass

    with pytest.raises(PortInUse, match="is in use"):
        asyncio.run(scenario())
