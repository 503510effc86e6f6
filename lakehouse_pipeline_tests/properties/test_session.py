"""Whatever a feed sends, a session makes rows that can be stored and coverage that makes sense."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.ingest.express import Express
from lakehouse_pipeline.ingest.rows import COVERAGE, TARGETS, Entry, build_frame, merge_marks
from lakehouse_pipeline.ingest.session import SECOND, SessionRecorder
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.market.quotes import COLUMNS
from lakehouse_pipeline.tradingview.frames import encode
from lakehouse_pipeline.tradingview.protocol import ClientProtocol

START = 1_700_000_000 * SECOND
SYMBOLS = ("X:A", "X:B")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
credible = st.fixed_dictionaries(
    {},
    optional={
        "lp": st.floats(0.01, 1e6),
        "lp_time": st.integers(1_600_000_000, 1_700_000_000),
        "volume": st.floats(0, 1e9),
        "bid": st.floats(0, 1e6),
        "description": st.text(max_size=5),
    },
)
anything = st.dictionaries(st.sampled_from([*COLUMNS, "other"]), scalars, max_size=5)
names = st.sampled_from([*SYMBOLS, "X:UNASKED"])


@st.composite
def messages(draw) -> str:
    kind = draw(st.sampled_from(["qsd", "qsd", "qsd", "completed", "error", "heartbeat", "noise"]))
    name = draw(names)
    match kind:
        case "qsd":
            values: dict[str, Any] = draw(credible | anything)
            content: Any = {"m": "qsd", "p": ["qs", {"n": name, "s": "ok", "v": values}]}
        case "completed":
            content = {"m": "quote_completed", "p": ["qs", name]}
        case "error":
            content = {"m": "qsd", "p": ["qs", {"n": name, "s": "error", "errmsg": "no", "v": {}}]}
        case "heartbeat":
            return encode(f"~h~{draw(st.integers(1, 50))}")
        case _:
            return draw(st.text(max_size=30))
    spelled = json.dumps(content, separators=draw(st.sampled_from([(",", ":"), None])))
    return encode(spelled)


traffic = st.lists(st.tuples(st.integers(-2 * SECOND, 40 * SECOND), messages()), max_size=25)


def play(script: list[tuple[int, str]]) -> list[Entry]:
    session, protocol = SessionRecorder("s", opened_at=START), ClientProtocol()
    session.subscribe(SYMBOLS)
    entries, at = session.opened("hello"), START
    for step, text in script:
        at += step
        entries += session.receive(protocol.receive_text(text, None), at)
        entries += session.tick()
    return entries + session.ended(Ending.CLOSED)


@given(traffic)
def test_every_row_survives_the_spool_and_becomes_a_frame(script):
    entries = play(script)

    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(entries))

    for name, target in TARGETS.items():
        rows = [(number, row) for number, (kind, row) in enumerate(stored, 1) if kind == name]
        if rows:
            frame = build_frame(target, rows, exchange="X", writer_id="w")
            assert frame.schema == target.schema
            assert frame.height == len(rows)


@given(traffic)
def test_alive_marks_are_disjoint_in_order_and_end_at_the_last_frame(script):
    marks = [row for kind, row in play(script) if kind == COVERAGE]

    alive = [(row[3], row[4]) for row in marks if row[1] == "alive"]
    (ended,) = [row for row in marks if row[1] == "ended"]
    edges = [edge for window in alive for edge in window]
    assert edges == sorted(edges)
    assert all(start < end for start, end in alive)
    assert marks[-1] == ended
    assert not alive or ended[3] >= alive[-1][1]


@given(traffic, st.data())
def test_merging_marks_keeps_the_instants_they_cover(script, data):
    numbered = [(n, row) for n, (kind, row) in enumerate(play(script), 1) if kind == COVERAGE]
    cut = data.draw(st.integers(0, len(numbered)))

    parts = [*merge_marks(numbered[:cut]), *merge_marks(numbered[cut:])]

    def length(rows) -> int:
        return sum(row[4] - row[3] for _, row in rows if row[1] == "alive")

    assert length(parts) == length(numbered)
    numbers = [number for number, _ in parts]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= {number for number, _ in numbered}


def play_as_a_worker_does(script: list[tuple[int, str]]) -> list[Entry]:
    session, protocol = SessionRecorder("s", opened_at=START), ClientProtocol()
    express = Express("qs", session)
    session.subscribe(SYMBOLS)
    entries, at = session.opened("hello"), START
    for step, text in script:
        at += step
        if (entry := express.receive(text, at)) is not None:
            entries.append(entry)
        else:
            entries += session.receive(protocol.receive_text(text, None), at)
        entries += session.tick()
    return entries + session.ended(Ending.CLOSED)


@given(traffic)
def test_the_short_way_of_an_update_gives_the_same_as_the_long_one(script):
    assert play_as_a_worker_does(script) == play(script)
