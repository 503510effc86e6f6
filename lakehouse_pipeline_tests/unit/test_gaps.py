"""The ledger: where a gap is, why, what it cost, and that its name is kept."""

from __future__ import annotations

import polars as pl
import pytest

from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.gaps import Cause, find_gaps
from lakehouse_pipeline.market.schemas import COVERAGE, GAPS, QUOTES
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline_tests.scripted import SYMBOL, Script, window

HOUR = window(0, 3600)


def outage(ended: Ending | None, *, counter: float = 12.0, trade: float = 20) -> Script:
    """Seen until 20, then from 40.5 on."""
    script = Script().session("first", alive=(0, 20), ended=ended)
    script.snapshot(0.5, "first", last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.session("second", alive=(40, 100))
    return script.snapshot(40.5, "second", last_price=1.0, cumulative_volume=counter, trade=trade)


def ledger(script: Script, within: TimeWindow = HOUR, *, until: float = 95) -> pl.DataFrame:
    return find_gaps(script.quotes, script.coverage, within, script.time(until))


def test_an_outage_lasts_from_lateness_before_the_last_frame_to_the_next_data():
    script = outage(Ending.CLOSED)

    gap = ledger(script).row(0, named=True)

    assert (gap["start"], gap["end"]) == (script.time(15), script.time(40.5))
    assert (gap["counter_before"], gap["counter_after"]) == (10.0, 12.0)
    assert gap["missed_volume"] == 2.0
    assert "ended closed" in gap["evidence"]
    assert "next session second" in gap["evidence"]


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (Ending.CLOSED, Cause.FEED_GAP),
        (Ending.SILENT, Cause.FEED_GAP),
        (Ending.STOPPED, Cause.WORKER_DOWN),
        (Ending.CRASHED, Cause.WORKER_DOWN),
        (Ending.HANDED_OVER, Cause.WORKER_DOWN),
        (Ending.LEASE_OVER, Cause.WORKER_DOWN),
        (Ending.REFUSED, Cause.FEED_GAP),
        (Ending.BANNED, Cause.FEED_GAP),
        (None, Cause.WORKER_DOWN),
    ],
)
def test_the_cause_is_how_the_session_before_it_ended(ending: Ending | None, cause: Cause):
    assert ledger(outage(ending))["cause"].to_list() == [cause]


def test_an_unchanged_counter_and_trade_prove_that_nothing_was_missed():
    gap = ledger(outage(Ending.CLOSED, counter=10.0, trade=-9)).row(0, named=True)

    assert gap["missed_volume"] == 0.0
    assert "nothing was missed" in gap["evidence"]


def test_a_refused_symbol_is_a_lost_subscription():
    script = outage(Ending.CLOSED)
    script.mark(Mark.REFUSED, "second", 25, symbol=SYMBOL, reason="permission_denied")

    gap = ledger(script).row(0, named=True)

    assert gap["cause"] == Cause.SUBSCRIPTION_LOST
    assert "permission_denied" in gap["evidence"]


def test_a_session_alive_without_the_symbol_is_a_lost_subscription():
    script = Script().session("first", alive=(0, 20), ended=Ending.CLOSED)
    script.snapshot(0.5, "first", last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.session("second", alive=(22, 100))

    assert ledger(script)["cause"].to_list() == [Cause.SUBSCRIPTION_LOST]


def test_shed_and_stalled_windows_are_gaps_of_their_own():
    script = Script().session("s1", alive=(0, 100))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.mark(Mark.SHED, "s1", 10, 12, reason="spool full")
    script.mark(Mark.STALLED, "s1", 50, 70, symbol=SYMBOL)

    gaps = ledger(script)

    assert gaps["cause"].to_list() == [Cause.BACKPRESSURE_DROP, Cause.SYMBOL_STALLED]
    assert gaps["start"].to_list() == [script.time(5), script.time(50)]


@pytest.mark.parametrize("windows", [[(20, 23)], [(20, 23), (26, 27), (40, 41)]])
def test_what_was_shed_is_missed_volume_once(windows: list[tuple[int, int]]):
    script = Script().session("s1", alive=(0, 100))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=100.0, trade=-9)
    for second in range(1, 90):
        if not any(start <= second + 0.4 < end for start, end in windows):
            script.trade(second + 0.4, 1.0, 100.0 + second)
    for start, end in windows:
        script.mark(Mark.SHED, "s1", start, end)

    gaps = ledger(script)
    bars = build_bars_1s(script.quotes, script.coverage, window(0, 90), script.time(95))

    assert set(gaps["cause"]) == {Cause.BACKPRESSURE_DROP}
    assert bars["volume"].sum() + gaps["missed_volume"].sum() == 89.0
    for start, end in windows:
        unseen = bars.filter(
            pl.col("open_time").is_between(script.time(start - 5), script.time(end - 1))
        )
        assert unseen["covered_seconds"].sum() == 0.0


def test_before_the_first_data_and_after_unsubscribing_nothing_is_missed():
    script = Script().session("s1", alive=(0, 100))
    script.snapshot(30, last_price=1.0, cumulative_volume=10.0, trade=29)
    script.mark(Mark.UNSUBSCRIBED, "s1", 60, symbol=SYMBOL)

    assert ledger(script).is_empty()


def test_a_stall_of_a_session_that_lives_on_is_the_feeds():
    script = (
        Script()
        .session("first", alive=(0, 20))
        .snapshot(0.5, "first", last_price=1.0, cumulative_volume=10.0, trade=-9)
    )
    script.mark(Mark.ALIVE, "first", 40, 100)
    script.trade(40.5, 1.5, 14.0, session="first")

    gap = ledger(script).row(0, named=True)

    assert gap["cause"] == Cause.FEED_GAP
    assert "was open and received no frame" in gap["evidence"]
    assert gap["missed_volume"] == 4.0


def test_a_quiet_symbol_on_a_living_session_has_no_gap():
    script = Script().session("s1", alive=(0, 100))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9000)

    assert ledger(script).is_empty()


def test_a_hole_at_the_watermark_no_longer_than_lateness_waits_for_the_next_mark():
    script = Script().session("s1", alive=(0, 100)).session("other", alive=(0, 104))
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9)

    assert ledger(script, until=99).is_empty()
    assert ledger(script, until=101)["start"].to_list() == [script.time(95)]


def test_an_open_gap_has_no_figure_yet():
    script = Script().session("s1", alive=(0, 20), ended=Ending.STOPPED)
    script.snapshot(0.5, last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.session("elsewhere", alive=(-10, 0))

    gap = ledger(script).row(0, named=True)

    assert (gap["end"], gap["missed_volume"]) == (script.time(95), None)
    assert gap["counter_before"] == 10.0


def test_the_parts_of_a_gap_over_midnight_share_its_name():
    script = outage(Ending.CLOSED)
    script.start = script.start.replace(hour=23, minute=59, second=30)
    late = Script(start=script.start).session("first", alive=(0, 20), ended=Ending.CLOSED)
    late.snapshot(0.5, "first", last_price=1.0, cumulative_volume=10.0, trade=-9)
    late.session("second", alive=(40, 100))
    late.snapshot(40.5, "second", last_price=1.0, cumulative_volume=0.5, trade=39)
    whole = TimeWindow(late.time(-100), late.time(200))

    gaps = ledger(late, whole)
    pieces = [ledger(late, TimeWindow.of_day(day)) for day in whole.days()]

    assert gaps.equals(pl.concat(pieces))
    assert gaps["gap_id"].n_unique() == 1
    assert gaps["end"][0] == gaps["start"][1] == late.time(30)
    assert gaps["missed_volume"].to_list() == [None, 0.5]
    assert gaps["counter_before"].to_list() == [10.0, 0.0]


def test_a_midnight_without_a_trade_costs_nothing_on_either_side():
    midnight = Script().start.replace(hour=23, minute=59, second=30)
    script = Script(start=midnight).session("first", alive=(0, 20), ended=Ending.CLOSED)
    script.snapshot(0.5, "first", last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.session("second", alive=(40, 100))
    script.snapshot(40.5, "second", last_price=1.0, cumulative_volume=10.0, trade=-9)

    gaps = ledger(script, TimeWindow(script.time(-100), script.time(200)))

    assert gaps["missed_volume"].to_list() == [0.0, 0.0]


def test_two_outages_keep_their_own_volume():
    script = outage(Ending.CLOSED)
    script.trade(61, 1.0, 12.5, session="second")
    script.session("third", alive=(120, 200))
    script.snapshot(120.5, "third", last_price=1.0, cumulative_volume=15.0, trade=119)

    gaps = ledger(script, until=190)

    assert gaps["missed_volume"].to_list() == [2.0, 2.5]
    assert gaps["start"].to_list() == [script.time(15), script.time(95)]


def test_without_marks_there_is_no_ledger():
    gaps = find_gaps(QUOTES.to_frame(), COVERAGE.to_frame(), HOUR, HOUR.end)

    assert gaps.schema == GAPS
    assert gaps.is_empty()
