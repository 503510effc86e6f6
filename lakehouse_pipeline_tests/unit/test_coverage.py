"""When a symbol was seen, told from a worker's marks."""

from __future__ import annotations

import polars as pl
import pytest

from lakehouse_pipeline.market.coverage import (
    Ending,
    Mark,
    covered,
    paused,
    runs,
    session_windows,
    wanted,
    watermark,
)
from lakehouse_pipeline.market.schemas import COVERAGE
from lakehouse_pipeline_tests.scripted import SYMBOL, Script, window

HOUR = window(0, 3600)


def seen(script: Script) -> list[tuple[float, float]]:
    return [
        ((w.start - script.start).total_seconds(), (w.end - script.start).total_seconds())
        for w in covered(script.coverage, SYMBOL, HOUR)
    ]


def subscribed(script: Script, at: float, session: str = "s1") -> Script:
    return script.mark(Mark.SUBSCRIBED, session, at, symbol=SYMBOL)


def test_a_symbol_is_seen_from_its_first_data_until_lateness_before_the_last_frame():
    script = subscribed(Script().session("s1", alive=(0, 60)), 2)

    assert seen(script) == [(2, 55)]


def test_rows_of_one_session_that_touch_are_one_window():
    script = Script().session("s1", alive=(0, 60), pieces=4)

    assert session_windows(script.coverage) == {"s1": [window(0, 60)]}


def test_a_row_repeated_or_out_of_order_changes_nothing():
    script = subscribed(Script().session("s1", alive=(0, 60), pieces=4), 2)
    shuffled = script.coverage.sample(fraction=3, with_replacement=True, seed=1)

    assert runs(shuffled.vstack(script.coverage)) == runs(script.coverage)


def test_a_session_that_was_not_heard_of_for_a_while_has_a_hole():
    script = subscribed(Script().session("s1", alive=(0, 20)), 0)
    script.mark(Mark.ALIVE, "s1", 40, 60)

    assert seen(script) == [(0, 15), (40, 55)]


def test_a_session_that_took_over_in_time_leaves_no_hole():
    script = subscribed(Script().session("s1", alive=(0, 30), ended=Ending.HANDED_OVER), 0)
    subscribed(script.session("s2", alive=(25, 60)), 29, "s2")

    assert seen(script) == [(0, 55)]


def test_the_hole_between_two_sessions_starts_lateness_before_the_last_frame():
    script = subscribed(Script().session("s1", alive=(0, 20), ended=Ending.CLOSED), 0)
    subscribed(script.session("s2", alive=(29, 60)), 30, "s2")

    assert seen(script) == [(0, 15), (30, 55)]


def test_before_a_shed_window_lateness_is_not_covered():
    """A trade of the second before may have come among what was shed."""
    script = subscribed(Script().session("s1", alive=(0, 60)), 0)
    script.mark(Mark.SHED, "s1", 10, 12).mark(Mark.SHED, "s1", 14, 15)

    assert seen(script) == [(0, 5), (15, 55)]


def test_what_another_session_saw_meanwhile_is_covered():
    script = subscribed(Script().session("s1", alive=(0, 60)), 0)
    subscribed(script.session("s2", alive=(5, 40)), 6, "s2")
    script.mark(Mark.SHED, "s1", 10, 12)

    assert seen(script) == [(0, 55)]


def test_unsubscribed_and_stalled_windows_end_sharply():
    script = subscribed(Script().session("s1", alive=(0, 60)), 0)
    script.mark(Mark.STALLED, "s1", 20, 25, symbol=SYMBOL)
    script.mark(Mark.STALLED, "s1", 40, 50, symbol="BINANCE:OTHER")
    script.mark(Mark.SUBSCRIBED, "s1", 25, symbol=SYMBOL)  # its data came again
    script.mark(Mark.UNSUBSCRIBED, "s1", 30, symbol=SYMBOL)

    assert seen(script) == [(0, 20), (25, 30)]


@pytest.mark.parametrize("kind", [Mark.STALLED, Mark.REFUSED])
def test_a_symbol_that_fell_silent_is_unseen_until_its_data_comes_again(kind: Mark):
    """Its silence after the mark was once taken for a quiet market."""
    script = subscribed(Script().session("s1", alive=(0, 100)), 0)
    script.mark(kind, "s1", 20, 21, symbol=SYMBOL)

    assert seen(script) == [(0, 20)]

    script.mark(Mark.SUBSCRIBED, "s1", 70, symbol=SYMBOL)

    assert seen(script) == [(0, 20), (70, 95)]


def test_a_symbol_taken_off_an_older_session_is_still_wanted():
    script = subscribed(Script().session("s1", alive=(0, 30)), 0)
    subscribed(script.session("s2", alive=(10, 60)), 11, "s2")
    script.mark(Mark.UNSUBSCRIBED, "s1", 12, symbol=SYMBOL)

    assert [w.start for w in wanted(script.coverage)[SYMBOL]] == [script.time(0)]
    assert seen(script) == [(0, 55)]

    script.mark(Mark.UNSUBSCRIBED, "s2", 40, symbol=SYMBOL)

    assert wanted(script.coverage)[SYMBOL] == [window(0, 40)]


def test_event_time_is_complete_lateness_before_the_newest_alive_mark():
    script = Script().session("s1", alive=(0, 60)).session("s2", alive=(10, 50))

    assert watermark(script.coverage, "BINANCE") == script.time(55)
    assert watermark(script.coverage, "OKX") is None


def test_no_marks_cover_nothing():
    assert covered(COVERAGE.to_frame(), SYMBOL, HOUR) == []


def test_data_whose_alive_mark_is_still_to_come_is_a_run_of_its_own():
    script = subscribed(Script().session("s1", alive=(0, 20)), 0)
    subscribed(script, 30, "s2")

    assert len(runs(script.coverage)[SYMBOL]) == 2
    assert seen(script) == [(0, 15)]


def test_a_symbol_nobody_wanted_for_a_while_was_paused():
    script = subscribed(Script().session("s1", alive=(0, 90)), 2)
    script.mark(Mark.UNSUBSCRIBED, "s1", 30, symbol=SYMBOL)
    subscribed(script, 50)
    whole = script.coverage

    assert paused(whole) == {SYMBOL: [window(30, 50)]}
    assert paused(whole.filter(start=script.time(50))) == {}
    assert paused(whole.filter(pl.col("start") >= script.time(30))) == paused(whole)
    assert paused(whole.sample(fraction=3, with_replacement=True, seed=1).vstack(whole)) == paused(
        whole
    )


def test_a_handover_is_no_pause():
    script = subscribed(Script().session("s1", alive=(0, 30)), 0)
    subscribed(script.session("s2", alive=(10, 60)), 10, "s2")
    script.mark(Mark.UNSUBSCRIBED, "s1", 12, symbol=SYMBOL)
    subscribed(script, 20, "s2")

    assert paused(script.coverage) == {}
