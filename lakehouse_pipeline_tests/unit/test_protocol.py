"""Both halves of the protocol: what each verb looks like on the wire, and who answers first."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.tradingview.frames import FrameDecoder, encode
from lakehouse_pipeline.tradingview.messages import (
    Flaw,
    Heartbeat,
    Hello,
    Malformed,
    QuoteUpdate,
    Redirect,
    SeriesLoading,
)
from lakehouse_pipeline.tradingview.protocol import QUOTE_FIELDS, ClientProtocol
from lakehouse_pipeline.tradingview.server_protocol import Call, HeartbeatEcho, ServerProtocol

NOW = datetime(2025, 12, 20, 22, 12, 8, 405_000, tzinfo=UTC)


def sent_by(protocol):
    """The messages a client queued, taken out of their envelopes."""
    payloads = [FrameDecoder().decode(text) for text in protocol.texts_to_send()]
    assert all(len(one) == 1 for one in payloads)
    return [json.loads(payload) for (payload,) in payloads]


# The client's verbs.


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (lambda c: c.set_auth_token(), ["set_auth_token", "unauthorized_user_token"]),
        (lambda c: c.set_auth_token("jwt"), ["set_auth_token", "jwt"]),
        (lambda c: c.set_locale(), ["set_locale", "en", "US"]),
        (lambda c: c.quote_create_session("qs"), ["quote_create_session", "qs"]),
        (lambda c: c.quote_set_fields("qs"), ["quote_set_fields", "qs", *QUOTE_FIELDS]),
        (
            lambda c: c.quote_add_symbols("qs", ["A:B", "A:C"]),
            ["quote_add_symbols", "qs", "A:B", "A:C"],
        ),
        (lambda c: c.quote_remove_symbols("qs", ["A:B"]), ["quote_remove_symbols", "qs", "A:B"]),
        (lambda c: c.quote_delete_session("qs"), ["quote_delete_session", "qs"]),
        (lambda c: c.chart_create_session("cs"), ["chart_create_session", "cs", ""]),
        (
            lambda c: c.resolve_symbol("cs", "sym_1", "BINANCE:BTCUSDT"),
            [
                *("resolve_symbol", "cs", "sym_1"),
                '={"adjustment":"splits","session":"regular","symbol":"BINANCE:BTCUSDT"}',
            ],
        ),
        (
            lambda c: c.create_series(
                "cs", "sds_1", turnaround="s1", symbol_id="sym_1", resolution="1", count=300
            ),
            ["create_series", "cs", "sds_1", "s1", "sym_1", "1", 300, ""],
        ),
        (
            lambda c: c.create_series(
                *("cs", "sds_1"),
                turnaround="s1",
                symbol_id="sym_1",
                resolution="1",
                count=0,
                range_=TimeWindow(NOW.replace(microsecond=0), NOW.replace(minute=13, second=0)),
            ),
            ["create_series", "cs", "sds_1", "s1", "sym_1", "1", 0, "r,1766268728:1766268780"],
        ),
        (
            lambda c: c.request_more_data("cs", "sds_1", 1000),
            ["request_more_data", "cs", "sds_1", 1000],
        ),
        (lambda c: c.remove_series("cs", "sds_1"), ["remove_series", "cs", "sds_1"]),
        (lambda c: c.chart_delete_session("cs"), ["chart_delete_session", "cs"]),
        (
            lambda c: c.create_study(
                *("cs", "st1"),
                turnaround="st1",
                series="sds_1",
                script="Script@tv-scripting-101!",
                inputs={"pineId": "STD;RSI", "in_0": {"v": 14, "f": True, "t": "integer"}},
            ),
            [
                *("create_study", "cs", "st1", "st1", "sds_1", "Script@tv-scripting-101!"),
                {"pineId": "STD;RSI", "in_0": {"v": 14, "f": True, "t": "integer"}},
            ],
        ),
        (lambda c: c.remove_study("cs", "st1"), ["remove_study", "cs", "st1"]),
    ],
)
def test_each_verb_is_one_message_of_the_official_order(say, message):
    client = ClientProtocol()

    say(client)

    assert sent_by(client) == [{"m": message[0], "p": message[1:]}]
    assert client.texts_to_send() == []


def test_symbols_are_subscribed_in_batches_of_fifty_without_flags():
    client = ClientProtocol()
    names = [f"BINANCE:S{number}" for number in range(120)]

    client.quote_add_symbols("qs", names)

    messages = sent_by(client)
    assert [len(message["p"]) - 1 for message in messages] == [50, 50, 20]
    assert [name for message in messages for name in message["p"][1:]] == names


def test_no_names_are_no_message():
    client = ClientProtocol()

    client.quote_add_symbols("qs", [])

    assert client.texts_to_send() == []


def test_non_ascii_text_goes_out_escaped():
    client = ClientProtocol()

    client.quote_add_symbols("qs", ["TSE:キッコーマン🥢"])

    (text,) = client.texts_to_send()
    assert text.isascii()


# Heartbeats.


def test_a_heartbeat_is_answered_before_anything_queued_earlier():
    client = ClientProtocol()
    client.quote_create_session("qs")

    events = client.receive_text(
        encode("~h~7") + encode('{"m":"series_loading","p":["c","s","t"]}') + encode("~h~8"), NOW
    )

    assert events == [Heartbeat(7), SeriesLoading("c", "s", "t"), Heartbeat(8)]
    texts = client.texts_to_send()
    assert texts[:2] == ["~m~4~m~~h~7", "~m~4~m~~h~8"]
    assert len(texts) == 3


def test_the_client_remembers_when_it_last_heard_anything():
    client = ClientProtocol()

    assert client.last_received is None
    client.receive_text("~m~4~m~~h~1", NOW)

    assert client.last_received == NOW


# Garbage.


def test_what_the_client_cannot_read_is_an_event_and_the_rest_is_read():
    client = ClientProtocol()

    events = client.receive_text("junk" + encode("{") + encode("~h~1"), NOW)

    assert events == [
        Malformed(Flaw.JSON, "{"),
        Heartbeat(1),
        Malformed(Flaw.FRAMING, "junk"),
    ]
    assert client.decoder.errors == 1


# The server.


def test_the_server_greets_with_its_clock():
    server, client = ServerProtocol(), ClientProtocol()

    server.hello(session_id="0.1_test", now=NOW)

    (text,) = server.texts_to_send()
    assert text.split("~m~")[2].startswith('{"session_id":"0.1_test","timestamp":1766268728,')
    assert client.receive_text(text, NOW) == [Hello("0.1_test", NOW, "release_210-6")]


def test_the_server_may_redirect():
    server, client = ServerProtocol(), ClientProtocol()

    server.redirect("other.example:443")

    (text,) = server.texts_to_send()
    assert client.receive_text(text, NOW) == [Redirect("other.example:443")]


def test_each_packet_is_a_message_of_its_own_compact_and_in_order():
    server = ServerProtocol()

    server.send("quote_completed", ["qs", "A:B"])
    server.heartbeat()
    server.send("series_loading", ["cs", "s", "t"], stamps=(1780851033, 1780851033916))

    assert server.texts_to_send() == [
        '~m~40~m~{"m":"quote_completed","p":["qs","A:B"]}',
        "~m~4~m~~h~1",
        '~m~77~m~{"m":"series_loading","p":["cs","s","t"],"t":1780851033,"t_ms":1780851033916}',
    ]
    assert server.texts_to_send() == []


def test_heartbeats_count_up_and_echoes_are_noticed():
    server = ServerProtocol()

    assert [server.heartbeat(), server.heartbeat()] == [1, 2]
    assert server.receive_text("~m~4~m~~h~2~m~4~m~~h~1") == [HeartbeatEcho(2), HeartbeatEcho(1)]
    assert (server.heartbeats_sent, server.last_echo) == (2, 2)


def test_the_server_reads_several_calls_in_a_message():
    server = ServerProtocol()

    requests = server.receive_text(
        encode('{"m": "quote_add_symbols", "p": ["qs", "A:B", {"flags": ["x"]}]}')
        + encode('{"m":"request_data_problems","p":[]}')
    )

    assert requests == [
        Call("quote_add_symbols", ["qs", "A:B", {"flags": ["x"]}]),
        Call("request_data_problems", []),
    ]


@pytest.mark.parametrize(
    ("text", "flaw", "kept"),
    [
        ("2", Flaw.UNFRAMED, "2"),  # a client that keeps alive in another protocol's way
        ('{"m":"x","p":[]}', Flaw.UNFRAMED, '{"m":"x","p":[]}'),
        ("~m~9~m~{}", Flaw.FRAMING, "~m~9~m~{}"),
        ("~m~2~m~{}", Flaw.SHAPE, "{}"),
        ("~m~1~m~{", Flaw.JSON, "{"),
        ("~m~4~m~~h~x", Flaw.HEARTBEAT, "~h~x"),
    ],
)
def test_the_server_tells_what_was_wrong_with_a_text(text, flaw, kept):
    assert ServerProtocol().receive_text(text) == [Malformed(flaw, kept)]


def test_a_server_may_spell_and_count_in_its_own_way():
    def count_bytes(payload):
        return f"~m~{len(payload.encode())}~m~{payload}"

    def spell_raw(message):
        return json.dumps(message, ensure_ascii=False, separators=(",", ":"))

    server, client = ServerProtocol(frame=count_bytes, spell=spell_raw), ClientProtocol()

    server.send("qsd", ["qs", {"n": "TSE:2801", "s": "ok", "v": {"description": "キッコーマン"}}])

    (text,) = server.texts_to_send()
    assert "キッコーマン" in text
    assert client.receive_text(text, NOW) == [
        QuoteUpdate("qs", "TSE:2801", "ok", {"description": "キッコーマン"}, "")
    ]
