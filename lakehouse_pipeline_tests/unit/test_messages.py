"""Payloads become typed events, refusals become typed errors; shapes follow captured frames."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from lakehouse_pipeline.errors import (
    AuthError,
    Banned,
    EntitlementError,
    FeedError,
    LimitError,
    ProtocolFault,
    StudyError,
    SymbolError,
)
from lakehouse_pipeline.tradingview.frames import FrameDecoder
from lakehouse_pipeline.tradingview.messages import (
    CriticalFailure,
    Flaw,
    Heartbeat,
    Hello,
    HistoryBar,
    HistoryUpdate,
    Malformed,
    ProtocolFailure,
    QuoteCompleted,
    QuoteUpdate,
    Redirect,
    SeriesCompleted,
    SeriesFailed,
    SeriesLoading,
    SeriesTimeframe,
    StudyCompleted,
    StudyFailed,
    StudyLoading,
    StudyPoint,
    SymbolFailed,
    SymbolResolved,
    Unknown,
    missing,
    to_error,
)
from lakehouse_pipeline.tradingview.parsing import parse


def message(method, *params, **stamps):
    return json.dumps({"m": method, "p": params, **stamps}, separators=(",", ":"))


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


# The greeting and heartbeats.


def test_the_greeting_carries_the_servers_clock():
    event = parse(
        '{"session_id":"0.1_har1-charts-free-3","timestamp":1766268728,'
        '"timestampMs":1766268728405,"release":"release_208-91","auth_scheme_vsn":2,'
        '"protocol":"json","via":"192.0.2.1:443","javastudies":["3.66"]}'
    )

    assert event == Hello(
        "0.1_har1-charts-free-3", utc(2025, 12, 20, 22, 12, 8, 405_000), "release_208-91"
    )


@pytest.mark.parametrize(
    ("payload", "server_time"),
    [
        ('{"session_id":"x","timestamp":1766268728}', utc(2025, 12, 20, 22, 12, 8)),
        ('{"session_id":"x"}', None),
    ],
)
def test_a_greeting_may_say_less_of_the_time(payload, server_time):
    assert parse(payload) == Hello("x", server_time, "")


def test_a_greeting_may_redirect():
    assert parse('{"redirect":"data2.example"}') == Redirect("data2.example")


@pytest.mark.parametrize(("payload", "number"), [("~h~1", 1), ("~h~1000000", 1_000_000)])
def test_a_heartbeat_has_a_number(payload, number):
    assert parse(payload) == Heartbeat(number)


# Quotes.


def test_a_quote_update_holds_only_what_changed():
    event = parse(
        '{"m":"qsd","p":["qs_1",{"n":"BINANCE:BTCUSDT","s":"ok","v":'
        '{"lp_time":1766268729,"lp":88211.12,"ch":74.18}}]}'
    )

    assert event == QuoteUpdate(
        "qs_1", "BINANCE:BTCUSDT", "ok", {"lp_time": 1766268729, "lp": 88211.12, "ch": 74.18}, ""
    )
    assert to_error(event) is None


def test_the_order_of_keys_does_not_matter():
    one = parse('{"m":"qsd","p":["qs_1",{"n":"A:B","s":"ok","v":{"lp":1}}]}')
    other = parse('{"p":["qs_1",{"v":{"lp":1},"s":"ok","n":"A:B"}], "m":"qsd"}')

    assert one == other


def test_numbers_beyond_1e99_are_no_value():
    event = parse(
        '{"m":"qsd","p":["q",{"n":"N:X","s":"ok","v":{"volume":1e+100,"ch":-1E99,"rtc":null,"lp":1e98}}]}'
    )

    assert event.values == {"volume": None, "ch": None, "rtc": None, "lp": 1e98}


def test_prices_with_twenty_digits_are_read():
    event = parse('{"m":"qsd","p":["q",{"n":"A:B","s":"ok","v":{"ask":8004.8000000000001819}}]}')

    assert event.values == {"ask": 8004.8}


def test_quote_completed_names_the_symbol():
    assert parse(message("quote_completed", "qs_1", "A:B")) == QuoteCompleted("qs_1", "A:B")


# Charts.


def test_history_is_bars_by_time_with_volume_where_there_is_one():
    event = parse(
        message(
            "timescale_update",
            "cs_1",
            {
                "sds_1": {
                    "node": "n",
                    "s": [
                        {"i": 0, "v": [1685633880.0, 3.0, 4.0, 1.0, 2.0, 638315.0]},
                        {"i": 1, "v": [1685633940, 3, 4, 1, 2]},
                        {"i": 2, "v": [1685634000.0, 3.0, 4.0, 1.0, 2.0, 1e100]},
                        {"i": 3, "v": [1685634060.0, None, 1e100, 1.0, 2.0, 5.0]},
                    ],
                    "ns": {"d": "", "indexes": []},
                    "t": "s1",
                    "lbs": {"bar_close_time": 1685634120},
                }
            },
            {"index": 0, "zoffset": 0, "changes": [], "marks": [], "index_diff": []},
            t=1,
            t_ms=1000,
        )
    )

    minutes = [utc(2023, 6, 1, 15, minute) for minute in (38, 39, 40)]
    assert event == HistoryUpdate(
        "cs_1",
        {
            "sds_1": [
                HistoryBar(minutes[0], 3.0, 4.0, 1.0, 2.0, 638315.0),
                HistoryBar(minutes[1], 3.0, 4.0, 1.0, 2.0, None),
                HistoryBar(minutes[2], 3.0, 4.0, 1.0, 2.0, None),
            ]
        },
        {},
    )


def test_an_update_may_hold_series_and_studies_at_once():
    event = parse(
        message(
            "du",
            "cs_1",
            {
                "sds_1": {"s": [{"i": 9, "v": [0.0, 1, 1, 1, 1, 1]}], "t": "s1"},
                "st9": {"st": [{"i": 9, "v": [0.0, 54.21, 1e100, None]}], "t": "s1_st1"},
            },
        )
    )

    epoch = utc(1970, 1, 1)
    assert event.series == {"sds_1": [HistoryBar(epoch, 1, 1, 1, 1, 1)]}
    assert event.studies == {"st9": [StudyPoint(epoch, (54.21, None, None))]}


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (
            message("series_loading", "cs", "sds_1", "s1", t=1, t_ms=1000),
            SeriesLoading("cs", "sds_1", "s1"),
        ),
        (
            message("series_timeframe", "cs", "sds_5", "s1", 2242, 2636, "LASTSESSION", True),
            SeriesTimeframe("cs", "sds_5", "s1", 2242, 2636, "LASTSESSION", True),
        ),
        (
            message("series_timeframe", "cs", "sds_5", "s1", 0, 9, None, False),
            SeriesTimeframe("cs", "sds_5", "s1", 0, 9, None, False),
        ),
        (
            message("series_completed", "cs", "sds_1", "streaming", "s1", {"rt_update_period": 5}),
            SeriesCompleted("cs", "sds_1", "streaming", "s1", None),
        ),
        (
            message(
                *("series_completed", "cs", "sds_1", "streaming", "s2"),
                {"rt_update_period": 0, "data_completed": "limit"},
            ),
            SeriesCompleted("cs", "sds_1", "streaming", "s2", "limit"),
        ),
        (message("study_loading", "cs", "st9", "s1_st1"), StudyLoading("cs", "st9", "s1_st1")),
        (message("study_completed", "cs", "st9", "s1_st1"), StudyCompleted("cs", "st9", "s1_st1")),
        (message("replay_ok", "rs", "x"), Unknown("replay_ok", message("replay_ok", "rs", "x"))),
        ('~j~{"m":"quote_completed","p":["q","A:B"]}', QuoteCompleted("q", "A:B")),
    ],
)
def test_each_method_has_its_event(payload, event):
    assert parse(payload) == event
    assert to_error(event) is None


def test_a_resolved_symbol_tells_its_tick_and_its_name():
    event = parse(
        message(
            "symbol_resolved",
            "cs",
            "sds_sym_1",
            {
                "full_name": "BITSTAMP:BTCUSD",
                "pricescale": 1,
                "minmov": 1,
                "type": "spot",
                "typespecs": ["crypto"],
                "currency_code": "USD",
                "session": "24x7",
                "timezone": "Etc/UTC",
                "legs": ["X"],
            },
        )
    )

    assert isinstance(event, SymbolResolved)
    assert (event.info.full_name, event.info.pricescale) == ("BITSTAMP:BTCUSD", 1)
    assert event.info.typespecs == ["crypto"]
    assert event.info.description is None


# Refusals.


@pytest.mark.parametrize(
    ("payload", "event_type", "error_type"),
    [
        (message("protocol_error", "bad auth token"), ProtocolFailure, AuthError),
        (message("protocol_error", "banned"), ProtocolFailure, Banned),
        (message("protocol_error", "banned by ip"), ProtocolFailure, Banned),
        (message("protocol_error", "banned by user_id"), ProtocolFailure, Banned),
        (message("protocol_error", "user connections limit reached"), ProtocolFailure, LimitError),
        (message("protocol_error", "wrong data"), ProtocolFailure, ProtocolFault),
        (
            message("protocol_error", '{unknown_session_id,<<"create_series">>,\n  [<<"s1">>]}'),
            ProtocolFailure,
            ProtocolFault,
        ),
        (
            message("critical_error", "qs", "invalid_parameters", "quote_add_symbols"),
            CriticalFailure,
            ProtocolFault,
        ),
        (
            message("critical_error", "cs", "exceed limit of series in the session", "method: …"),
            CriticalFailure,
            LimitError,
        ),
        (message("symbol_error", "cs", "sds_sym_1", "invalid symbol"), SymbolFailed, SymbolError),
        (
            message("symbol_error", "cs", "s", "permission denied", "group", "economics_paid"),
            SymbolFailed,
            EntitlementError,
        ),
        (message("symbol_error", "cs", "s", "never seen before"), SymbolFailed, SymbolError),
        (
            message("series_error", "cs", "sds_1", "s1", "resolve error", "srv"),
            SeriesFailed,
            SymbolError,
        ),
        *(
            (message("series_error", "cs", "sds_1", "s1", reason), SeriesFailed, EntitlementError)
            for reason in (
                "seconds_not_entitled",
                "ticks_not_entitled",
                "resolution_not_entitled",
                "custom_resolution",
                "study_not_auth:BarSetRenko@tv-prostudies-73",
            )
        ),
        (
            message("series_error", "cs", "sds_1", "s1", "unsupported resolution: INDEX:X, 5", "s"),
            SeriesFailed,
            SymbolError,
        ),
        (
            message("series_error", "cs", "sds_1", "s1", "never seen before"),
            SeriesFailed,
            FeedError,
        ),
        (
            message(
                *("study_error", "cs", "st1", "s1_st1"),
                "The maximum number of studies per chart has been reached for current subscription",
            ),
            StudyFailed,
            LimitError,
        ),
        (
            message("study_error", "cs", "st1", "s1_st1", "check study unexpected error", "srv"),
            StudyFailed,
            StudyError,
        ),
        (
            message("qsd", "qs", {"n": "A:B", "s": "error", "errmsg": "no_such_symbol", "v": {}}),
            QuoteUpdate,
            SymbolError,
        ),
        (message("qsd", "qs", {"n": "A:B", "s": "error"}), QuoteUpdate, SymbolError),
        (
            message("qsd", "qs", {"n": "A:B", "s": "permission_denied", "errmsg": "", "v": {}}),
            QuoteUpdate,
            EntitlementError,
        ),
        (
            message("qsd", "qs", {"n": "A:B", "s": "permission_denied", "errmsg": "Sorry"}),
            QuoteUpdate,
            EntitlementError,
        ),
    ],
)
def test_each_refusal_is_the_error_its_wording_means(payload, event_type, error_type):
    event = parse(payload)

    assert type(event) is event_type
    error = to_error(event)
    assert type(error) is error_type
    assert "\n" not in str(error)


def test_a_refusal_that_is_a_template_is_filled():
    event = parse(
        message(
            *("study_error", "cs", "st1", "s1_st1"),
            {
                "ctx": {"argName": "factor", "bar_index": 0, "value": -1},
                "error": "Error on bar {bar_index}: '{argName}' was {value}, see {nothing}.",
                "stack_trace": [{"n": "#main", "p": 7}],
            },
        )
    )

    assert str(to_error(event)) == (
        "Study st1 was refused: Error on bar 0: 'factor' was -1, see {nothing}."
    )


def test_an_error_names_the_symbol_and_the_mend():
    error = to_error(
        parse(message("qsd", "qs", {"n": "A:B", "s": "error", "errmsg": "no_such_symbol"}))
    )

    assert str(error) == "A:B was refused: no_such_symbol. Check its name in exchanges.yaml."


# Text that is not the protocol.


@pytest.mark.parametrize(
    ("payload", "flaw"),
    [
        ("", Flaw.JSON),
        ("{", Flaw.JSON),
        ("~h~", Flaw.HEARTBEAT),
        ("~h~x", Flaw.HEARTBEAT),
        ("~h~" + "9" * 5000, Flaw.HEARTBEAT),
        ("~h~1 ", Flaw.HEARTBEAT),
        ('{"m":"qsd"', Flaw.JSON),
        ('{"m":"qsd\ud800"}', Flaw.JSON),
        ('{"m":"du","p":' + "[" * 2000, Flaw.JSON),  # deeper than any stack
        ('{"m":"qsd","p":["q",{"n":"A:B","v":{"lp":' + "[" * 2000, Flaw.JSON),
        ("1", Flaw.SHAPE),
        ("[]", Flaw.SHAPE),
        ("{}", Flaw.SHAPE),
        ('{"m":1,"p":[]}', Flaw.SHAPE),
        ('{"m":"qsd"}', Flaw.SHAPE),
        ('{"m":"qsd","p":["q",{"n":"A:B","v":{"lp":1e400}}]}', Flaw.SHAPE),
        ('{"m":"qsd","p":{}}', Flaw.SHAPE),
        ('{"m":"du","p":["cs",{"s":{"s":[{"v":[1,2,3,4]}]}}]}', Flaw.SHAPE),
        ('{"m":"du","p":["cs",{"s":{"s":[{"v":[null,1,2,3,4]}]}}]}', Flaw.SHAPE),
        ('{"m":"du","p":["cs",{"s":{"s":[{"v":[1e98,1,2,3,4]}]}}]}', Flaw.SHAPE),
        ('{"m":"du","p":["cs",{"s":{"st":[{"v":[]}]}}]}', Flaw.SHAPE),
        ('{"session_id":"x","timestampMs":1e90}', Flaw.SHAPE),
        ('{"m":"quote_completed","p":["q"]}', Flaw.SHAPE),
    ],
)
def test_text_that_is_not_the_protocol_is_an_event(payload, flaw):
    event = parse(payload)

    assert event == Malformed(flaw, payload)
    assert type(to_error(event)) is ProtocolFault


def test_missing_knows_the_feeds_sentinel():
    assert [missing(x) for x in (None, 1e99, -1e100, 9e98, 0.0, -1)] == [
        *(None, None, None),
        *(9e98, 0.0, -1),
    ]


def test_every_captured_frame_is_an_event_or_a_typed_refusal(shared_reference):
    refusals = ("protocol_error", "critical_error", "symbol_error", "series_error", "study_error")
    for line in (shared_reference / "sample_frames.jsonl").read_text().splitlines():
        for payload in FrameDecoder().decode(json.loads(line)["frame"]):
            event = parse(payload)

            assert not isinstance(event, Malformed), payload
            refused = any(f'"m":"{method}"' in payload for method in refusals) or (
                '"m":"qsd"' in payload and '"s":"ok"' not in payload
            )
            assert (to_error(event) is not None) == refused, payload
            assert not isinstance(event, Unknown) or event.method.startswith("replay_")
