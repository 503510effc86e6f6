"""One session without a socket: which rows, which coverage, which refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lakehouse_pipeline.errors import Banned
from lakehouse_pipeline.ingest.express import Express
from lakehouse_pipeline.ingest.rows import COVERAGE, QUOTES, REJECTS, TARGETS, Entry
from lakehouse_pipeline.ingest.session import SECOND, SessionRecorder
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.tradingview.frames import encode
from lakehouse_pipeline.tradingview.messages import (
    Flaw,
    Heartbeat,
    Malformed,
    ProtocolFailure,
    QuoteCompleted,
    QuoteUpdate,
    Unknown,
)

START = 1_700_000_000
NOW = START * SECOND
BTC = "BINANCE:BTCUSDT"
FULL = {"lp": 100.0, "lp_time": START - 3_600, "volume": 5.0, "description": "Bitcoin"}


def recorder(*names: str) -> SessionRecorder:
    session = SessionRecorder("s1", opened_at=NOW)
    session.subscribe(names or [BTC])
    return session


def restored(*names: str) -> SessionRecorder:
    session = recorder(*names)
    for name in names or [BTC]:
        session.receive([update(FULL, name), QuoteCompleted("qs", name)], NOW)
    return session


def update(values: dict[str, Any], name: str = BTC, status: str = "ok") -> QuoteUpdate:
    return QuoteUpdate("qs", name, status, values, "" if status == "ok" else "no_such_symbol")


def named(entry: Entry) -> dict[str, Any]:
    target, row = entry
    return {"target": target, **dict(zip(TARGETS[target].columns, row, strict=True))}


def of(target: str, entries: list[Entry]) -> list[dict[str, Any]]:
    return [named(entry) for entry in entries if entry[0] == target]


def quotes(entries: list[Entry]) -> list[dict[str, Any]]:
    return of(QUOTES, entries)


def marks(entries: list[Entry]) -> list[tuple]:
    return [
        (row["kind"], row["symbol"], row["start"] - NOW, row["end"] - NOW, row["reason"])
        for row in of(COVERAGE, entries)
    ]


def reasons(entries: list[Entry]) -> list[str]:
    return [row["reason"] for row in of(REJECTS, entries)]


def test_the_first_snapshot_restores_and_is_no_price():
    entries = recorder().receive([update(FULL)], NOW + 5)

    (row,) = quotes(entries)
    assert row["kind"] == "restore"
    assert row["event_time"] == row["received_at"] == NOW + 5
    assert row["last_time"] == (START - 3_600) * SECOND
    assert marks(entries) == [("subscribed", BTC, 5, 5, None)]


def test_a_first_load_in_parts_restores_until_it_is_completed():
    session = recorder()

    parts = session.receive([update({"bid": 99.0, "ask": 101.0}), update(FULL)], NOW)
    late_part = session.receive([update({"lp_time": START - 3_600})], NOW)
    session.receive([QuoteCompleted("qs", BTC)], NOW)
    after = session.receive([update({"lp": 101.0, "lp_time": START})], NOW)

    assert [row["kind"] for row in quotes(parts + late_part)] == ["restore"] * 3
    assert [row["kind"] for row in quotes(after)] == ["price"]


def test_a_lost_completion_does_not_restore_for_ever():
    session = recorder()
    session.receive([update(FULL)], NOW)

    second = session.receive([update({"lp": 101.0, "lp_time": START})], NOW)

    assert [row["kind"] for row in quotes(second)] == ["price"]


def test_updates_carry_the_merged_snapshot_and_what_changed():
    session = restored()

    entries = session.receive([update({"volume": 6.5, "lp_time": START + 1})], NOW + 1_300_000)

    (row,) = quotes(entries)
    assert row["kind"] == "volume"
    assert row["changed"] == "last_time,cumulative_volume"
    assert (row["last_price"], row["cumulative_volume"]) == (100.0, 6.5)
    assert row["event_time"] == row["last_time"] == (START + 1) * SECOND
    assert row["received_at"] == NOW + 1_300_000


def test_book_updates_and_static_resends_happen_when_received():
    session = restored()

    entries = session.receive(
        [update({"bid": 99.5}), update({"description": "again", "type": "spot"})], NOW + 7
    )

    assert [(row["kind"], row["event_time"]) for row in quotes(entries)] == [
        ("quote", NOW + 7),
        ("restore", NOW + 7),
    ]


def test_no_value_is_null():
    session = restored()

    (row,) = quotes(session.receive([update({"volume": None, "lp_time": START})], NOW))

    assert row["cumulative_volume"] is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"lp": -1.0}, "incredible_lp"),
        ({"lp": 0.0}, "incredible_lp"),
        ({"lp": float("nan")}, "incredible_lp"),
        ({"lp": float("inf")}, "incredible_lp"),
        ({"lp": "100"}, "incredible_lp"),
        ({"lp": True}, "incredible_lp"),
        ({"volume": -5.0}, "incredible_volume"),
        ({"volume": 10**40}, "incredible_volume"),
        ({"lp_time": START + 100_000}, "incredible_lp_time"),
        ({"bid_size": -1}, "incredible_bid_size"),
        ({"update_mode": 5}, "incredible_update_mode"),
    ],
)
def test_an_incredible_update_is_refused_whole_and_not_merged(values, reason):
    session = restored()

    refused = session.receive([update({"chp": 9.9, **values})], NOW)
    (row,) = quotes(session.receive([update({"lp_time": START})], NOW))

    assert quotes(refused) == []
    assert reasons(refused) == [reason]
    assert (row["last_price"], row["cumulative_volume"], row["change_percent"]) == (100, 5, None)


def test_symbols_nobody_asked_for_are_refused():
    entries = recorder().receive([update(FULL, "BINANCE:OTHER")], NOW)

    assert quotes(entries) == []
    assert reasons(entries) == ["not_subscribed"]


def test_an_unknown_symbol_is_marked_once_and_the_others_go_on():
    session = recorder(BTC, "BINANCE:NOPE")

    entries = session.receive(
        [update({}, "BINANCE:NOPE", "error"), update({}, "BINANCE:NOPE", "error"), update(FULL)],
        NOW,
    )

    assert marks(entries) == [
        ("refused", "BINANCE:NOPE", 0, 0, "no_such_symbol"),
        ("subscribed", BTC, 0, 0, None),
    ]
    assert reasons(entries) == ["symbol_refused"]
    assert len(quotes(entries)) == 1


def test_a_symbol_refused_for_a_while_is_seen_again_from_its_next_data_on():
    session = restored()

    gone = session.receive([update({}, status="error")], NOW + 10 * SECOND)
    back = session.receive([update(FULL), QuoteCompleted("qs", BTC)], NOW + 20 * SECOND)
    again = session.receive([update({}, status="error")], NOW + 30 * SECOND)

    assert marks(gone) == [("refused", BTC, 10 * SECOND, 10 * SECOND, "no_such_symbol")]
    assert marks(back) == [("subscribed", BTC, 20 * SECOND, 20 * SECOND, None)]
    assert [row["kind"] for row in quotes(back)] == ["restore"]
    assert marks(again) == [("refused", BTC, 30 * SECOND, 30 * SECOND, "no_such_symbol")]


def test_malformed_and_unknown_messages_are_kept_with_their_reason():
    entries = recorder().receive(
        [Malformed(Flaw.JSON, "{" * 10_000 + "\ud800"), Unknown("m", "payload")], NOW
    )

    assert reasons(entries) == ["malformed_json", "unknown_message"]
    assert len(of(REJECTS, entries)[0]["payload"]) == 2_000


def test_the_feed_ending_the_connection_is_a_fault():
    session = recorder()

    entries = session.receive([ProtocolFailure("banned by ip")], NOW)

    assert isinstance(session.fault, Banned)
    assert reasons(entries) == ["refused_by_feed"]


def test_alive_marks_touch_and_end_at_the_last_frame():
    session = restored()

    session.receive([Heartbeat(1)], NOW + 10 * SECOND)
    first = session.tick()
    nothing_new = session.tick()
    session.receive([Heartbeat(2)], NOW + 20 * SECOND)
    end = session.ended(Ending.CLOSED, "cut")

    assert marks(first) == [("alive", None, 0, 10 * SECOND, None)]
    assert nothing_new == []
    assert marks(end) == [
        ("alive", None, 10 * SECOND, 20 * SECOND, None),
        ("ended", None, 20 * SECOND, 20 * SECOND, "closed"),
    ]


def test_a_silence_longer_than_the_heartbeat_and_lateness_is_not_covered():
    session = restored()
    for number in (1, 2):
        session.receive([Heartbeat(number)], NOW + number * 10 * SECOND)

    entries = session.receive([Heartbeat(3)], NOW + 36 * SECOND)
    end = session.ended(Ending.STOPPED)

    assert marks(entries) == [("alive", None, 0, 20 * SECOND, None)]
    assert marks(end) == [("ended", None, 36 * SECOND, 36 * SECOND, "stopped")]


def test_time_does_not_run_backward_within_a_session():
    session = restored()
    session.receive([Heartbeat(1)], NOW + 10 * SECOND)

    (row,) = quotes(session.receive([update({"bid": 1.0})], NOW + 4 * SECOND))

    assert row["received_at"] == NOW + 10 * SECOND


def test_unsubscribing_ends_coverage_and_late_packets_are_refused():
    session = restored()

    gone = session.unsubscribe([BTC], NOW + 3)
    late = session.receive([update({"lp": 1.0})], NOW + 4)

    assert marks(gone) == [("unsubscribed", BTC, 3, 3, None)]
    assert reasons(late) == ["not_subscribed"]


def test_a_symbol_silent_beyond_its_habit_is_stalled_once_and_then_restored():
    session = restored(BTC, "BINANCE:ETHUSDT")
    for second in range(1, 360):
        for name in (BTC, "BINANCE:ETHUSDT"):
            session.receive([update({"lp_time": START + second}, name)], NOW + second * SECOND)
        assert session.stalled() == ([], [])
    frozen_since = 359 * SECOND
    for second in range(360, 421):
        assert session.stalled() == ([], [])
        session.receive(
            [update({"lp_time": START + second}, "BINANCE:ETHUSDT")], NOW + second * SECOND
        )

    names, entries = session.stalled()
    again, _ = session.stalled()
    back = session.receive([update(FULL), QuoteCompleted("qs", BTC)], NOW + 430 * SECOND)

    assert names == [BTC]
    assert marks(entries) == [("stalled", BTC, frozen_since, 420 * SECOND, None)]
    assert again == []
    assert [row["kind"] for row in quotes(back)] == ["restore"]
    assert ("subscribed", BTC, 430 * SECOND, 430 * SECOND, None) in marks(back)


def test_a_quiet_symbol_is_not_stalled_by_its_usual_silence():
    session = restored()
    for number in range(1, 60):
        session.receive([update({"bid": float(number)})], NOW + number * 90 * SECOND)
        assert session.stalled() == ([], [])
    session.receive([Heartbeat(1)], NOW + (60 * 90 + 600) * SECOND)

    assert session.stalled() == ([], [])


def test_the_short_way_leaves_the_first_data_of_a_symbol_to_the_long_one():
    session = recorder()
    session.receive([update({**FULL, "lp": -1.0}), QuoteCompleted("qs", BTC)], NOW)

    text = encode(f'{{"m":"qsd","p":["qs",{{"n":"{BTC}","s":"ok","v":{{"lp":101.0}}}}]}}')
    assert Express("qs", session).receive(text, NOW + 1) is None


def described(entries: list[Entry]) -> list[dict[str, Any]]:
    return [
        json.loads(row["detail"]) for row in of(COVERAGE, entries) if row["kind"] == "described"
    ]


def test_what_the_feed_says_a_symbol_is_lands_once_and_when_it_changes():
    session = recorder()
    first = {
        **FULL,
        "pricescale": 100,
        "minmov": 1,
        "currency_code": "USDT",
        "typespecs": ["crypto"],
    }

    entries = session.receive([update(first), update({"type": "spot"})], NOW)
    assert described(entries) == []
    entries = session.receive([QuoteCompleted("qs", BTC), QuoteCompleted("qs", BTC)], NOW)
    entries += session.receive([update({"lp": 101.0}), update({"type": "spot"})], NOW)
    changed = session.receive([update({"pricescale": 1_000})], NOW)

    whole = {
        "currency_code": "USDT",
        "description": "Bitcoin",
        "minmov": 1,
        "pricescale": 100,
        "type": "spot",
        "typespecs": ["crypto"],
    }
    assert described(entries) == [whole]
    assert described(changed) == [whole | {"pricescale": 1_000}]


def test_a_description_is_kept_to_a_bearable_length():
    session = restored()

    entries = session.receive([update({"description": "\ud83d" + "x" * 10_000_000})], NOW)

    assert described(entries) == [{"description": "?" + "x" * 199}]
