"""Charts and studies of one connection: what is asked, what is kept, what a refusal does."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from lakehouse_pipeline.ingest.landed import MOST_BARS, Landed
from lakehouse_pipeline.ingest.rows import INDICATORS, REJECTS, TARGETS, Entry, micros
from lakehouse_pipeline.ingest.scripts import AskedStudy
from lakehouse_pipeline.ingest.studies import (
    CHARTS_AT_ONCE,
    LONGEST_RETRY,
    RETRY,
    StudyRecorder,
    is_about_charts,
)
from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline.tradingview.frames import FrameDecoder
from lakehouse_pipeline.tradingview.messages import (
    CriticalFailure,
    HistoryUpdate,
    QuoteCompleted,
    SeriesCompleted,
    StudyCompleted,
    StudyFailed,
    StudyPoint,
    SymbolFailed,
)
from lakehouse_pipeline.tradingview.protocol import ClientProtocol

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
AT = micros(START)
RSI = AskedStudy("rsi", "length=14", ("rsi", None, "average"), {"in_0": 14})
MACD = AskedStudy("macd", "fast=12", ("macd",), {})
TOO_MANY = "The maximum number of studies per chart has been reached"


def nothing_stored() -> Landed:
    landed = Landed()
    landed.learn([f"X:{name}" for name in ("A", "B", "S0", "S1", "S2", "S3", "S4")], {})
    return landed


class Desk:
    """A recorder, and what it sent."""

    def __init__(self, landed: Landed | None = None) -> None:
        self.protocol = ClientProtocol()
        landed = nothing_stored() if landed is None else landed
        self.recorder = StudyRecorder("s1", self.protocol, landed, bars=612)
        self.noted: list[Entry] = []

    def follow(self, *symbols: str, at: int = AT, asked=(RSI, MACD)) -> list[list[Any]]:
        """Return the calls of one tick: method first."""
        self.noted += self.recorder.follow(symbols, asked, at)
        texts = self.protocol.texts_to_send()
        calls = [json.loads(p) for text in texts for p in FrameDecoder().decode(text)]
        return [[call["m"], *call["p"]] for call in calls]

    def opened(self, symbol: str = "X:A") -> tuple[str, list[str]]:
        """Open a chart; return its session and the ids of its studies."""
        (chart,) = [call[1] for call in self.follow(symbol) if call[0] == "chart_create_session"]
        self.recorder.receive([SeriesCompleted(chart, "sds_1", "streaming", "s1", None)], AT)
        return chart, [call[2] for call in self.follow(symbol) if call[0] == "create_study"]

    def points(self, chart: str, study: str, *values: tuple[float | None, ...], first: int = 0):
        points = [StudyPoint(START + n * MINUTE, row) for n, row in enumerate(values, first)]
        return self.recorder.receive([HistoryUpdate(chart, {}, {study: points})], AT)


def of(calls: list[list[Any]], method: str) -> list[list[Any]]:
    return [call for call in calls if call[0] == method]


def test_charts_are_opened_a_few_at_a_time_and_studies_stand_on_complete_series():
    desk = Desk()
    symbols = [f"X:S{n}" for n in range(5)]

    ticks = [desk.follow(*symbols) for _ in range(4)]

    assert [len(of(calls, "create_series")) for calls in ticks] == [2, 2, 1, 0]
    assert CHARTS_AT_ONCE == 2
    assert not any(of(calls, "create_study") for calls in ticks)
    assert len({call[1] for calls in ticks for call in of(calls, "create_series")}) == 5


def test_values_get_their_names_from_the_script_and_colors_and_nulls_are_none():
    desk = Desk()
    chart, (rsi, _) = desk.opened()

    entries = desk.points(chart, rsi, (None, 1.0, None), (55.5, 2.0, 50.0))

    columns = TARGETS[INDICATORS].columns
    rows = [dict(zip(columns, row, strict=True)) for _, row in entries]
    assert [(row["plot"], row["value"]) for row in rows] == [("rsi", 55.5), ("average", 50.0)]
    assert rows[0] | {"plot": ""} == {
        "symbol": "X:A",
        "event_time": AT + 60_000_000,
        "received_at": AT,
        "name": "rsi",
        "parameters": "length=14",
        "plot": "",
        "value": 55.5,
        "session_id": "s1",
        "chart_bars": 2,
    }


def test_a_reconnect_lands_what_is_new_and_how_much_of_its_chart_came_before():
    landed = nothing_stored()
    first, second = Desk(landed), Desk(landed)
    chart, (rsi, _) = first.opened()
    block = [(float(n), None, None) for n in range(10)]
    assert len(first.points(chart, rsi, *block)) == 10
    assert len(first.points(chart, rsi, (9.5, None, None), first=9)) == 1

    chart, (rsi, _) = second.opened()
    entries = second.points(chart, rsi, *block, (10.0, None, None))

    assert [((row[1] - AT) // 60_000_000, row[-1]) for _, row in entries] == [(9, 10), (10, 11)]
    again = second.points(chart, rsi, (9.7, None, None), (10.1, None, None), first=9)
    assert [row[-1] for _, row in again] == [10, 11]


def test_a_chart_after_a_break_is_longer_by_the_break():
    landed = nothing_stored()
    desk = Desk(landed)
    chart, (rsi, _) = desk.opened()
    desk.points(chart, rsi, (1.0, None, None))

    (series,) = of(Desk(landed).follow("X:A", at=AT + 300 * 60_000_000), "create_series")

    assert series[6] == 612 + 300


def test_a_break_longer_than_any_chart_asks_for_the_longest_and_says_what_is_missing():
    landed = nothing_stored()
    landed.learn(["X:A"], {("X:A", "rsi", "length=14"): AT - 6_000 * 60_000_000})
    desk = Desk(landed)
    chart, (rsi, _) = desk.opened()

    noted, *values = desk.points(chart, rsi, (1.0, None, None), (2.0, None, None), first=-5_000)
    later = desk.points(chart, rsi, (3.0, None, None), first=-4_998)

    assert noted[0] == REJECTS
    assert noted[1][2:4] == ("X:A", "study_hole")
    assert "rsi length=14" in noted[1][4]
    assert "2026-02-26 08:00" in noted[1][4]  # the last one stored
    assert "2026-02-27 00:40" in noted[1][4]  # the first of the chart
    assert [target for target, _ in values + later] == [INDICATORS] * 3


def test_a_break_the_chart_spans_is_no_hole():
    landed = nothing_stored()
    landed.learn(["X:A"], {("X:A", "rsi", "length=14"): AT})
    desk = Desk(landed)
    chart, (rsi, _) = desk.opened()

    entries = desk.points(chart, rsi, (1.0, None, None), (2.0, None, None))

    assert [target for target, _ in entries] == [INDICATORS] * 2


def test_of_a_symbol_of_which_nothing_is_known_the_chart_is_the_longest():
    (series,) = of(Desk(Landed()).follow("X:A"), "create_series")

    assert series[6] == MOST_BARS


def test_what_is_not_answered_is_asked_for_less_and_less_often():
    desk = Desk()
    minute = RETRY // 5
    asked = [
        n
        for n in range(12 * 60)
        if of(desk.follow("X:A", at=AT + n * minute), "chart_create_session")
    ]

    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses == [5, 10, 20, 40, 80, 120, 120, 120, 120]
    assert LONGEST_RETRY == 120 * minute
    assert desk.recorder.lacking == 1


def test_an_answer_ends_the_growing_pauses():
    desk = Desk()
    chart, (rsi, _) = desk.opened()
    for at in (AT + RETRY, AT + 3 * RETRY):
        calls = desk.follow("X:A", at=at)
        rsi, _ = (call[2] for call in of(calls, "create_study"))
    assert desk.recorder.lacking == 2  # rsi and macd
    desk.points(chart, rsi, (1.0, None, None))
    assert desk.recorder.lacking == 1

    desk.recorder.receive([StudyFailed(chart, rsi, "s1_st1", "runtime error")], AT)

    assert desk.recorder.lacking == 2
    assert not of(desk.follow("X:A", at=AT + RETRY - 1), "create_study")
    assert len(of(desk.follow("X:A", at=AT + RETRY), "create_study")) == 1


def test_a_study_that_fails_again_and_again_is_asked_for_less_often():
    desk = Desk()
    chart, (rsi, macd) = desk.opened()
    desk.points(chart, macd, (1.0,))
    at, pauses = AT, []
    for _ in range(4):
        desk.recorder.receive([StudyFailed(chart, rsi, "s1_st1", "runtime error")], at)
        since = at
        while not (calls := of(desk.follow("X:A", at=at), "create_study")):
            at += RETRY // 5
        pauses.append((at - since) * 5 // RETRY)
        rsi = calls[0][2]

    assert pauses == [5, 10, 20, 40]


def test_a_symbol_no_longer_wanted_lacks_nothing():
    desk = Desk()
    desk.follow("X:A")
    desk.follow("X:A", at=AT + RETRY)
    assert desk.recorder.lacking == 1

    desk.follow("X:B", at=AT + RETRY)

    assert desk.recorder.lacking == 0


def test_a_study_that_failed_is_asked_for_again_after_a_while():
    desk = Desk()
    chart, (rsi, macd) = desk.opened()
    desk.points(chart, macd, (1.0,))

    entries = desk.recorder.receive([StudyFailed(chart, rsi, "s1_st1", "runtime error")], AT)

    ((target, row),) = entries
    assert target == REJECTS
    assert row[2:4] == ("X:A", "study_refused")
    assert not desk.follow("X:A", at=AT + RETRY - 1)
    (again,) = of(desk.follow("X:A", at=AT + RETRY), "create_study")
    assert again[2] != rsi


def test_what_the_subscription_does_not_include_waits_for_another_token():
    desk = Desk()
    chart, (rsi, macd) = desk.opened()
    failures = [StudyFailed(chart, study, "s1_st1", TOO_MANY) for study in (rsi, macd)]
    desk.recorder.receive(failures, AT)

    assert not desk.follow("X:A", at=AT + 1000 * RETRY)
    desk.recorder.forgive()

    assert len(of(desk.follow("X:A"), "create_study")) == 2


def test_a_chart_that_gets_no_answer_is_opened_anew_and_noted():
    desk = Desk()
    ((_, chart, _),) = of(desk.follow("X:A"), "chart_create_session")

    assert not desk.follow("X:A", at=AT + RETRY - 1)
    calls = desk.follow("X:A", at=AT + RETRY)

    assert of(calls, "chart_delete_session") == [["chart_delete_session", chart]]
    assert of(calls, "chart_create_session")[0][1] != chart
    assert [(target, *row[2:]) for target, row in desk.noted] == [
        (REJECTS, "X:A", "study_unanswered", "chart")
    ]
    assert not desk.follow("X:A", at=AT + RETRY + 1)


def test_a_study_that_gets_no_answer_is_asked_for_anew_and_noted():
    desk = Desk()
    chart, (rsi, macd) = desk.opened()
    desk.points(chart, macd, (1.0,))

    assert not desk.follow("X:A", at=AT + RETRY - 1)
    calls = desk.follow("X:A", at=AT + RETRY)

    assert of(calls, "remove_study") == [["remove_study", chart, rsi]]
    ((_, _, again, *_),) = of(calls, "create_study")
    assert again not in (rsi, macd)
    assert [row[2:] for _, row in desk.noted] == [("X:A", "study_unanswered", "rsi")]
    assert desk.points(chart, rsi, (1.0, 1.0, 1.0)) == []  # it is nobody's any more
    assert len(desk.points(chart, again, (1.0, None, None))) == 1


def test_a_study_that_is_complete_without_values_has_answered():
    desk = Desk()
    chart, ids = desk.opened()
    desk.recorder.receive([StudyCompleted(chart, one, "s1_st1") for one in ids], AT)

    assert not desk.follow("X:A", at=AT + 1000 * RETRY)
    assert not desk.noted


def test_what_was_refused_is_not_taken_for_unanswered():
    desk = Desk()
    chart, ids = desk.opened()
    desk.recorder.receive([StudyFailed(chart, one, "s1_st1", TOO_MANY) for one in ids], AT)

    assert not desk.follow("X:A", at=AT + 1000 * RETRY)
    assert not desk.noted


def test_a_chart_has_as_many_bars_as_it_is_asked_for():
    (series,) = of(Desk().follow("X:A"), "create_series")

    assert series[6] == 612


def test_an_unknown_symbol_is_refused_once_and_the_others_go_on():
    desk = Desk()
    chart, _ = desk.opened()

    entries = desk.recorder.receive([SymbolFailed(chart, "sds_sym_1", "invalid symbol")], AT)

    assert [target for target, _ in entries] == [REJECTS]
    calls = desk.follow("X:A", "X:B", at=AT + 1000 * RETRY)
    assert [call[3] for call in of(calls, "resolve_symbol")] == [
        '={"adjustment":"splits","session":"regular","symbol":"X:B"}'
    ]


def test_a_chart_in_trouble_is_opened_anew():
    desk = Desk()
    chart, _ = desk.opened()
    desk.recorder.receive([CriticalFailure(chart, "internal error")], AT)

    calls = desk.follow("X:A", at=AT + RETRY)

    assert of(calls, "chart_delete_session") == [["chart_delete_session", chart]]
    assert of(calls, "chart_create_session")[0][1] != chart


def test_a_symbol_no_longer_wanted_gives_its_chart_back():
    desk = Desk()
    chart, (rsi, _) = desk.opened()

    assert desk.follow() == [["chart_delete_session", chart]]
    assert desk.points(chart, rsi, (1.0, 1.0, 1.0)) == []


def test_nothing_is_opened_before_a_study_is_known():
    assert Desk().follow("X:A", asked=()) == []


def test_only_chart_messages_are_kept_from_the_quotes():
    desk = Desk()
    chart, _ = desk.opened()

    assert is_about_charts(CriticalFailure(chart, "any"))
    assert not is_about_charts(CriticalFailure("qs_1", "any"))
    assert not is_about_charts(QuoteCompleted("qs_1", "X:A"))
