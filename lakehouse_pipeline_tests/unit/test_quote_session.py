"""What a quote session does when packets may not leave: conflate, and lose nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.feedserver.outbox import ROOM, Outbox
from lakehouse_pipeline.feedserver.quote_session import Broadcast, QuoteSession

BTC = "BINANCE:BTCUSDT"


class Outlet:
    """A connection that can be stopped and counts what leaves."""

    def __init__(self) -> None:
        self.stopped = False
        self.quotes: list[dict[str, Any]] = []

    def send(self, method: str, params: list[Any]) -> None:
        pass

    def send_quote(self, session: str, name: str, values: dict[str, Any], tail: str) -> None:
        assert (session, name) == ("qs", BTC)
        assert json.loads(tail) == values
        self.quotes.append(values)

    def snapshot(self, symbol: str) -> dict[str, Any] | None:
        return {"lp": 0, "bid": 0, "pro_name": symbol}

    def holds(self, symbol: str) -> bool:
        return self.stopped and symbol == BTC


steps = st.lists(
    st.one_of(
        st.sampled_from(["stop", "go"]),
        st.dictionaries(st.sampled_from(["lp", "bid", "volume"]), st.integers(1, 9), min_size=1),
    )
)


@given(steps)
def test_whatever_waits_the_client_ends_with_the_same_state(steps: list[Any]) -> None:
    outlet = Outlet()
    session = QuoteSession("qs", outlet)
    session.add(BTC)
    expected = outlet.snapshot(BTC)
    for step in steps:
        if isinstance(step, dict):
            session.push(BTC, Broadcast(step))
            expected |= step
        else:
            outlet.stopped = step == "stop"
            session.flush()
    outlet.stopped = False
    session.flush()

    state: dict[str, Any] = {}
    for values in outlet.quotes:
        state |= values
    assert state == expected


def test_what_waited_comes_as_one_packet_and_later_updates_do_not_overtake_it() -> None:
    outlet = Outlet()
    session = QuoteSession("qs", outlet)
    session.add(BTC)
    outlet.stopped = True
    for price in (1, 2, 3):
        session.push(BTC, Broadcast({"lp": price}))
    outlet.stopped = False
    session.push(BTC, Broadcast({"bid": 4}))
    session.flush()

    assert outlet.quotes[1:] == [{"lp": 3, "bid": 4}]


def test_a_session_without_fields_gets_all_and_one_with_fields_only_those() -> None:
    outlet = Outlet()
    session = QuoteSession("qs", outlet)
    session.add(BTC)
    session.set_fields(["bid"])
    session.push(BTC, Broadcast({"lp": 1}))
    session.push(BTC, Broadcast({"lp": 2, "bid": 2}))
    session.set_fields([])
    session.push(BTC, Broadcast({"lp": 3}))

    assert outlet.quotes[1:] == [{"bid": 2}, {"lp": 3}]


def test_an_outbox_is_full_at_its_room_and_still_takes_answers() -> None:
    box = Outbox()
    for number in range(ROOM):
        assert not box.full
        box.put(str(number))
    assert box.full
    box.put("an answer")
