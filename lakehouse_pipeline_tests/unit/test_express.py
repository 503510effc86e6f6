"""The short way of an update's text, and what it leaves to the long one."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse_pipeline.ingest.express import Express
from lakehouse_pipeline.ingest.rows import QUOTES, TARGETS
from lakehouse_pipeline.ingest.session import SECOND, SessionRecorder
from lakehouse_pipeline.tradingview.frames import encode
from lakehouse_pipeline.tradingview.messages import QuoteCompleted, QuoteUpdate

NOW = 1_700_000_000 * SECOND
ROW = TARGETS[QUOTES].columns


def recorder() -> SessionRecorder:
    session = SessionRecorder("s", opened_at=NOW)
    session.subscribe(["X:A"])
    first = QuoteUpdate("qs_1", "X:A", "ok", {"lp": 1.0, "lp_time": 16}, "")
    session.receive([first, QuoteCompleted("qs_1", "X:A")], NOW)
    return session


def receive(other: str, session: SessionRecorder | None = None) -> dict[str, Any] | None:
    entry = Express("qs_1", session or recorder()).receive(other, NOW + 1)
    return None if entry is None else dict(zip(ROW, entry[1], strict=True))


def text(values: str, *, session: str = "qs_1", name: str = "X:A", tail: str = "}]}") -> str:
    return encode(f'{{"m":"qsd","p":["{session}",{{"n":"{name}","s":"ok","v":{values}{tail}')


def test_a_usual_update_is_its_row():
    row = receive(text('{"volume":2.5,"lp_time":17}'))

    assert row is not None
    assert (row["symbol"], row["kind"], row["changed"]) == (
        *("X:A", "volume"),
        "last_time,cumulative_volume",
    )
    assert (row["last_price"], row["cumulative_volume"]) == (1.0, 2.5)
    assert row["event_time"] == row["last_time"] == 17 * SECOND


def test_fields_nobody_keeps_are_left_out():
    row = receive(text('{"bid":1,"rtc":null,"current_session":"market"}'))

    assert row is not None
    assert (row["changed"], row["bid"]) == ("bid", 1.0)


def test_rows_are_their_own():
    express = Express("qs_1", recorder())

    first = express.receive(text('{"bid":1}'), NOW + 1)
    second = express.receive(text('{"bid":2}'), NOW + 2)

    assert first is not None
    assert second is not None
    assert [entry[1][ROW.index("bid")] for entry in (first, second)] == [1, 2]


def test_a_symbol_subscribed_again_is_found_again():
    session = recorder()
    express = Express("qs_1", session)
    assert express.receive(text('{"bid":1}'), NOW + 1) is not None

    session.unsubscribe(["X:A"], NOW + 2)
    gone = express.receive(text('{"bid":1}'), NOW + 3)
    session.subscribe(["X:A"])
    restoring = express.receive(text('{"bid":1}'), NOW + 4)
    update = QuoteUpdate("qs_1", "X:A", "ok", {"lp": 7.0, "lp_time": 16}, "")
    session.receive([update, QuoteCompleted("qs_1", "X:A")], NOW + 5)
    back = express.receive(text('{"bid":1}'), NOW + 6)

    assert (gone, restoring) == (None, None)
    assert back is not None
    assert back[1][ROW.index("last_price")] == 7.0


@pytest.mark.parametrize(
    "other",
    [
        "",
        "~h~1",
        encode("~h~1"),
        text('{"lp":1.5}') + encode("~h~1"),
        text('{"lp":1.5}', session="qs_2"),
        text('{"lp":1.5}', name='X:\\"A'),
        text('{"lp":1.5}', tail="}]} "),
        text('{"lp":1.5}', tail=',"errmsg":"x"}]}'),
        text('{"lp":1.5', tail="}}}"),
        text('{"lp":1.5}').replace("~m~6", "~m~7"),
        text('{"lp":1.5}').replace('"ok"', '"error"'),
        text('{"lp":1e+100}'),
        text('{"lp":-1}'),
        text('{"lp":0}'),
        text('{"volume":-0.5}'),
        text('{"volume":null}'),
        text('{"lp":"1"}'),
        text('{"lp_time":1.5}'),
        text('{"lp":1.5,"type":"spot"}'),
        text('{"lp":1.5,"open_time":86400}'),
        text('{"lp":1.5}', name="X:B"),
    ],
)
def test_whatever_else_it_is_goes_the_long_way(other: Any):
    assert receive(other) is None
