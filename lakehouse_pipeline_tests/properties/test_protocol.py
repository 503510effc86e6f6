"""The two halves driven against each other agree, and no text makes either raise."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from lakehouse_pipeline.tradingview.frames import FrameDecoder, encode
from lakehouse_pipeline.tradingview.messages import (
    CriticalFailure,
    Heartbeat,
    ProtocolFailure,
    QuoteCompleted,
    QuoteUpdate,
    SeriesCompleted,
    SeriesFailed,
    SeriesLoading,
    StudyCompleted,
    StudyFailed,
    SymbolFailed,
    Unknown,
    to_error,
)
from lakehouse_pipeline.tradingview.parsing import parse
from lakehouse_pipeline.tradingview.protocol import ClientProtocol
from lakehouse_pipeline.tradingview.server_protocol import Call, HeartbeatEcho, ServerProtocol

NOW = datetime(2025, 12, 20, 22, 12, 8, tzinfo=UTC)
IDS = st.text(st.characters(codec="utf-8"), max_size=8) | st.just("~m~12~m~{}~h~1")
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(-1e98, 1e98)
SCALARS = st.none() | st.booleans() | NUMBERS | IDS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(IDS, inner, max_size=3)
)
REASONS = st.text(min_size=1, max_size=12) | st.dictionaries(IDS, SCALARS, min_size=1, max_size=2)

# A verb of the client, and the calls a server must hear.
VERBS = st.one_of(
    st.tuples(st.just("set_auth_token"), st.tuples(IDS)),
    st.tuples(st.just("set_locale"), st.tuples(IDS, IDS)),
    st.tuples(st.just("quote_create_session"), st.tuples(IDS)),
    st.tuples(st.just("quote_delete_session"), st.tuples(IDS)),
    st.tuples(st.just("request_more_data"), st.tuples(IDS, IDS, st.integers(1, 5000))),
    st.tuples(st.just("remove_series"), st.tuples(IDS, IDS)),
    st.tuples(st.just("chart_delete_session"), st.tuples(IDS)),
    st.tuples(st.just("remove_study"), st.tuples(IDS, IDS)),
)
LISTS = st.sampled_from(["quote_set_fields", "quote_add_symbols", "quote_remove_symbols"])


def event_pairs():
    """Pairs of a server's message and the event it must be for the client."""
    three = st.tuples(IDS, IDS, IDS)
    quotes = st.dictionaries(IDS, JSON, max_size=4)
    return st.one_of(
        st.builds(
            lambda s, n, v: (
                ("qsd", [s, {"n": n, "s": "ok", "v": v}]),
                QuoteUpdate(s, n, "ok", v, ""),
            ),
            *(IDS, IDS, quotes),
        ),
        st.builds(
            lambda s, n, e: (
                ("qsd", [s, {"n": n, "s": "error", "errmsg": e, "v": {}}]),
                QuoteUpdate(s, n, "error", {}, e),
            ),
            *(IDS, IDS, IDS),
        ),
        st.builds(lambda s, n: (("quote_completed", [s, n]), QuoteCompleted(s, n)), IDS, IDS),
        st.builds(lambda ids: (("series_loading", ids), SeriesLoading(*ids)), three),
        st.builds(lambda ids: (("study_completed", ids), StudyCompleted(*ids)), three),
        st.builds(
            lambda ids, mode, done: (
                ("series_completed", [*ids[:2], mode, ids[2], {"data_completed": done}]),
                SeriesCompleted(*ids[:2], mode, ids[2], done),
            ),
            *(three, IDS, st.none() | IDS),
        ),
        st.builds(
            lambda ids, why: (("series_error", [*ids, why]), SeriesFailed(*ids, why)),
            *(three, REASONS),
        ),
        st.builds(
            lambda ids, why: (("study_error", [*ids, why, "srv"]), StudyFailed(*ids, why, "srv")),
            *(three, REASONS),
        ),
        st.builds(
            lambda s, i, why: (("symbol_error", [s, i, why]), SymbolFailed(s, i, why)),
            *(IDS, IDS, REASONS),
        ),
        st.builds(
            lambda s, why, detail: (
                ("critical_error", [s, why, detail]),
                CriticalFailure(s, why, detail),
            ),
            *(IDS, REASONS, IDS),
        ),
        st.builds(lambda why: (("protocol_error", [why]), ProtocolFailure(why)), REASONS),
    )


@given(st.lists(VERBS, max_size=6), st.booleans())
def test_each_verb_arrives_as_the_same_call(verbs, joined):
    client, server = ClientProtocol(), ServerProtocol()
    for verb, arguments in verbs:
        getattr(client, verb)(*arguments)

    texts = client.texts_to_send()
    if joined:  # a server must not care how packets share messages
        texts = ["".join(texts)]

    heard = [request for text in texts for request in server.receive_text(text)]
    assert heard == [Call(verb, list(arguments)) for verb, arguments in verbs]


@given(LISTS, IDS, st.lists(IDS, max_size=120))
def test_lists_arrive_whole(verb, session, names):
    client, server = ClientProtocol(), ServerProtocol()

    getattr(client, verb)(session, names)

    calls = [request for text in client.texts_to_send() for request in server.receive_text(text)]
    assert all(call.method == verb and call.params[0] == session for call in calls)
    assert [name for call in calls for name in call.params[1:]] == names
    assert verb == "quote_set_fields" or all(len(call.params) <= 51 for call in calls)


@given(IDS, IDS, st.dictionaries(IDS, JSON, max_size=4))
def test_studies_arrive_with_their_inputs(session, study, inputs):
    client, server = ClientProtocol(), ServerProtocol()

    client.create_study(
        session, study, turnaround="st1", series="sds_1", script="Script@x!", inputs=inputs
    )

    (text,) = client.texts_to_send()
    assert server.receive_text(text) == [
        Call("create_study", [session, study, "st1", "sds_1", "Script@x!", inputs])
    ]


@given(IDS, IDS, IDS, IDS, IDS, st.integers(0, 20_000))
def test_series_arrive_in_the_official_order(session, series, turnaround, symbol_id, code, count):
    client, server = ClientProtocol(), ServerProtocol()

    client.create_series(
        session, series, turnaround=turnaround, symbol_id=symbol_id, resolution=code, count=count
    )

    (text,) = client.texts_to_send()
    assert server.receive_text(text) == [
        Call("create_series", [session, series, turnaround, symbol_id, code, count, ""])
    ]


@given(IDS, IDS, IDS)
def test_symbols_arrive_as_the_official_client_asks_for_them(session, symbol_id, name):
    client, server = ClientProtocol(), ServerProtocol()

    client.resolve_symbol(session, symbol_id, name)

    (text,) = client.texts_to_send()
    ((method, params),) = [(call.method, call.params) for call in server.receive_text(text)]
    assert (method, params[:2], params[2][0]) == ("resolve_symbol", [session, symbol_id], "=")
    assert json.loads(params[2][1:])["symbol"] == name


@given(
    st.lists(event_pairs() | st.just("heartbeat"), max_size=8),
    st.none() | st.tuples(st.integers(0, 2**33), st.integers(0, 2**43)),
    st.sampled_from(["escaped", "raw"]),
    st.booleans(),
)
def test_each_message_of_the_server_is_the_same_event_for_the_client(
    script, stamps, spelling, joined
):
    def spell_raw(message):
        return json.dumps(message, ensure_ascii=False, separators=(",", ":"))

    server = ServerProtocol(spell=spell_raw) if spelling == "raw" else ServerProtocol()
    client = ClientProtocol()
    expected, heartbeats = [], []
    for step in script:
        if step == "heartbeat":
            expected.append(Heartbeat(server.heartbeat()))
            heartbeats.append(encode(f"~h~{server.heartbeats_sent}"))
        else:
            (method, params), event = step
            server.send(method, params, stamps)
            expected.append(event)

    texts = server.texts_to_send()
    assert len(texts) == len(script)
    if joined:
        texts = ["".join(texts)]
    events = [event for text in texts for event in client.receive_text(text, NOW)]

    assert events == expected
    echoes = client.texts_to_send()
    assert echoes == heartbeats  # byte for byte
    assert [request for text in echoes for request in server.receive_text(text)] == [
        HeartbeatEcho(event.number) for event in expected if isinstance(event, Heartbeat)
    ]
    assert server.last_echo == server.heartbeats_sent


METHODS = st.sampled_from(
    [
        *("qsd", "quote_completed", "series_loading", "symbol_resolved", "symbol_error", "du"),
        *("series_timeframe", "timescale_update", "series_completed", "series_error", "unheard_of"),
        *("study_loading", "study_completed", "study_error", "critical_error", "protocol_error"),
    ]
)
POINTS = st.lists(st.fixed_dictionaries({"v": st.lists(st.none() | NUMBERS, max_size=7)}))
BLOCKS = st.dictionaries(
    IDS,
    st.fixed_dictionaries({}, optional={"s": POINTS, "st": POINTS, "t": IDS, "ns": JSON}),
    max_size=2,
)
QUOTES = st.fixed_dictionaries({"n": IDS}, optional={"s": IDS, "v": JSON, "errmsg": JSON})
NEARLY_MESSAGES = st.builds(
    lambda method, params: json.dumps({"m": method, "p": params}),
    METHODS,
    st.lists(SCALARS | BLOCKS | QUOTES | JSON, max_size=5) | JSON,
)
ANY_TEXT = st.text(st.characters(exclude_categories=()))
PIECES = st.one_of(
    ANY_TEXT,
    NEARLY_MESSAGES,
    NEARLY_MESSAGES.map(encode),
    ANY_TEXT.map(encode),
    st.integers().map(lambda number: encode(f"~h~{number}")),
    st.integers(0, 99).map(lambda length: f"~m~{length}~m~"),
    st.dictionaries(st.sampled_from(["session_id", "redirect", "timestampMs", "m"]), JSON).map(
        lambda greeting: encode(json.dumps(greeting))
    ),
)


@given(st.lists(PIECES, max_size=5).map("".join))
@example('~m~37~m~{"session_id":"x","timestampMs":1e300}')
def test_no_text_makes_either_half_raise(text):
    client, server = ClientProtocol(), ServerProtocol()

    for event in client.receive_text(text, NOW):
        error = to_error(event)
        assert error is None or "\n" not in str(error)
    server.receive_text(text)


@given(NEARLY_MESSAGES)
def test_a_method_nobody_acts_on_is_kept_as_unknown(payload):
    event = parse(payload)

    if isinstance(event, Unknown):
        assert (event.method, event.payload) == ("unheard_of", payload)


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_bytes_that_are_no_text_are_refused_like_other_garbage(pieces):
    text = b"".join(pieces).decode("utf-8", "replace")

    assert FrameDecoder().decode(text) is not None
    ClientProtocol().receive_text(text, NOW)
