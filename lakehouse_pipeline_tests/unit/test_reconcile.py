"""The loss budget of a day, and how far the streamed minutes agree with official ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from lakehouse_pipeline.market.bars import build_bars
from lakehouse_pipeline.market.coverage import watermark
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.merge import merge
from lakehouse_pipeline.market.reconcile import Tolerance, reconcile
from lakehouse_pipeline.market.repair import Ended
from lakehouse_pipeline.market.schemas import FETCHES, HISTORY, RECONCILIATION
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script

DAY = TimeWindow.of_day(START.date())
REACH = timedelta(minutes=5_000)


def asked(first: int, end: int) -> tuple:
    """An answer for the minutes from *first* on and before *end*."""
    return (START + first * MINUTE, START + end * MINUTE, START + first * MINUTE, Ended.REACHED)


ALL_ASKED = asked(0, 9)


@pytest.fixture
def script() -> Script:
    """Trades each second from 0 to 600; nothing heard from 130 to 290 while 500 was traded."""
    script = Script()
    script.session("s1", alive=(0, 130)).session("s2", alive=(290, 600))
    script.snapshot(0, last_price=100.0, cumulative_volume=1000.0, trade=-1)
    volume = 1000.0
    for second in range(1, 600):
        if second == 290:
            volume += 500.0
            script.snapshot(290, "s2", last_price=100.0, cumulative_volume=volume, trade=289)
        elif not 130 < second < 290:
            volume += 1.0
            session = "s1" if second < 200 else "s2"
            script.trade(second + 0.4, 100.0 + second % 10, volume, trade=second, session=session)
    return script


def official(script: Script, *minutes: int, **changes: float) -> pl.DataFrame:
    """The minutes as a perfect vendor has them, with *changes* to each."""
    bars = build_bars(
        script.quotes, script.coverage, DAY, script.time(590), step=MINUTE, since=DAY.start
    )
    seen = {(row["open_time"] - START) // MINUTE: row for row in bars.to_dicts()}
    perfect = dict(open=100.0, high=109.0, low=100.0, close=109.0)  # noqa: C408  # reads like a row
    # The gap's 500 in minutes 2, 3 and 4, beside what was seen of them.
    missing = {2: 150.0, 3: 200.0, 4: 150.0}
    rows = []
    for minute in minutes:
        row = seen.get(minute, {})
        volume = (row.get("volume") or 0.0) + missing.get(minute, 0.0)
        prices = row if minute not in missing and row else perfect
        values = {name: prices[name] for name in ("open", "high", "low", "close")}
        values |= {"volume": volume} | changes
        open_time = START + minute * MINUTE
        rows.append(("BINANCE", SYMBOL, open_time, *values.values(), script.time(600)))
    return pl.DataFrame(rows, schema=HISTORY, orient="row")


def reconciled(
    script: Script, history: pl.DataFrame, *told: tuple, **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of the day and those of its gaps."""
    seen = watermark(script.coverage, "BINANCE")
    assert seen is not None
    quotes, coverage = script.quotes, script.coverage
    bars = build_bars(quotes, coverage, DAY, seen, step=MINUTE, since=DAY.start)
    gaps = find_gaps(quotes, coverage, DAY, seen)
    fetches = pl.DataFrame(
        [("BINANCE", SYMBOL, *each, None, seen) for each in told], schema=FETCHES, orient="row"
    )
    rows = reconcile(
        merge(bars, history, coverage, seen),
        history,
        gaps,
        fetches,
        coverage,
        DAY,
        seen,
        reach=REACH,
        **options,
    )
    assert rows.schema == RECONCILIATION
    (day,) = rows.filter(scope="day").to_dicts()
    return day, rows.filter(scope="gap").to_dicts()


def test_a_repaired_day_accounts_for_every_second_and_every_lot(script: Script):
    day, (gap,) = reconciled(script, official(script, *range(9)), ALL_ASKED)

    assert (gap["status"], gap["seconds_lost"]) == ("filled", 0.0)
    assert (gap["missed_volume"], gap["filled_volume"], gap["volume_residual"]) == (500, 500, 0)
    assert day["seconds_observed"] + day["seconds_filled"] == 595.0
    assert (day["status"], day["close_mismatches"], day["worst"]) == ("agrees", 0, None)
    assert day["minutes_compared"] == 6
    assert day["volume_residual"] == 0.0


def test_without_history_the_gap_is_open_and_the_day_unchecked(script: Script):
    day, (gap,) = reconciled(script, HISTORY.to_frame())

    assert (day["status"], day["minutes_compared"]) == ("unchecked", 0)
    assert (gap["status"], gap["filled_volume"]) == ("open", None)
    assert day["seconds_lost"] == gap["seconds_lost"] == 165.0
    assert (day["missed_volume"], day["volume_residual"]) == (500.0, None)


def test_closes_that_differ_are_counted_and_named(script: Script):
    history = pl.concat([official(script, 0, 1), official(script, 6, close=109.05)])
    day, _ = reconciled(script, history, asked(0, 2), asked(6, 7))

    assert (day["status"], day["close_mismatches"]) == ("agrees", 1)
    assert day["worst"].startswith("10:06 close 109.0 for 109.05")


def test_a_close_beyond_tolerance_is_a_disagreement(script: Script):
    history = pl.concat([official(script, 0, 1), official(script, 6, close=120.0, high=120.0)])
    day, _ = reconciled(script, history, asked(0, 2), asked(6, 7))

    assert day["status"] == "differs"
    assert day["max_high_deviation"] == 11.0


def test_extremes_that_snapshots_missed_are_no_disagreement(script: Script):
    day, _ = reconciled(script, official(script, 6, high=130.0, low=70.0), asked(6, 7))

    assert day["status"] == "agrees"
    assert (day["max_high_deviation"], day["max_low_deviation"]) == (21.0, 30.0)


def test_a_price_that_was_never_traded_is_a_disagreement(script: Script):
    day, _ = reconciled(script, official(script, 6, high=105.0, close=105.0), asked(6, 7))

    assert day["status"] == "differs"


def test_volume_that_drifts_is_a_disagreement_beyond_tolerance(script: Script):
    history = official(script, 6, volume=59.0)

    day, _ = reconciled(script, history, asked(6, 7))
    lenient, _ = reconciled(script, history, asked(6, 7), tolerance=Tolerance(volume=0.02))

    assert (day["status"], day["volume_residual"]) == ("differs", 1.0)
    assert lenient["status"] == "agrees"


def test_a_seen_minute_without_our_bar_is_unseen_and_its_volume_counts():
    quiet = Script().session("s1", alive=(0, 200))
    quiet.snapshot(0, last_price=100.0, cumulative_volume=10.0, trade=-1)
    quiet.trade(130, 100.0, 13.0, trade=129)  # the trade of minute 1 came with that of minute 2
    rows = [
        ("BINANCE", SYMBOL, START + n * MINUTE, 100.0, 100.0, 100.0, 100.0, v, START)
        for n, v in ((1, 1.0), (2, 2.0))
    ]
    day, gaps = reconciled(quiet, pl.DataFrame(rows, schema=HISTORY, orient="row"))

    assert gaps == []
    assert (day["minutes_unseen"], day["minutes_compared"]) == (1, 1)
    assert (day["volume_residual"], day["status"]) == (0.0, "agrees")


def test_a_gap_with_less_volume_than_the_counter_missed_is_not_filled(script: Script):
    """The vendor has a bar for two of the gap's minutes; 200 of 500 were traded in the third."""
    day, (gap,) = reconciled(script, official(script, 0, 1, 2, 4, 5, 6), ALL_ASKED)

    assert (gap["status"], gap["reason"]) == ("partly_filled", "no_data")
    assert (gap["missed_volume"], gap["filled_volume"]) == (500.0, 300.0)
    assert gap["volume_residual"] == -200.0
    assert gap["seconds_lost"] == day["seconds_lost"] == 60.0
    assert gap["worst"] == "volume 300.0 for 500.0"


def test_bars_that_hold_too_little_refute_a_repair_that_has_all_of_them(script: Script):
    thin = official(script, 0, 1, 2, 4, 5, 6)
    _, (gap,) = reconciled(script, pl.concat([thin, official(script, 3, volume=50.0)]), ALL_ASKED)

    assert (gap["status"], gap["volume_residual"]) == ("partly_filled", -150.0)
    assert gap["seconds_lost"] == 0.0  # each has its bar, the volume alone is short


@pytest.mark.parametrize(("volume", "named"), [(215.0, None), (260.0, "volume 560.0 for 500.0")])
def test_a_residual_at_the_edges_is_named_only_beyond_tolerance(
    script: Script, volume: float, named: str | None
):
    rest = official(script, *range(3), *range(4, 9))
    _, (gap,) = reconciled(script, pl.concat([rest, official(script, 3, volume=volume)]), ALL_ASKED)

    assert (gap["status"], gap["volume_residual"]) == ("filled", volume - 200.0)
    assert gap["worst"] == named


def test_a_gap_that_is_open_is_not_yet_measured(script: Script):
    _, (gap,) = reconciled(script, official(script, 2))

    assert (gap["status"], gap["volume_residual"]) == ("open", -350.0)
    assert gap["worst"] is None


def test_trades_of_ours_in_a_minute_the_vendor_has_not_are_a_disagreement(script: Script):
    script.trade(
        450.5, 250.0, 9_000.0, trade=450, session="s2"
    )  # in minute 7, far from any official price
    day, _ = reconciled(script, official(script, 5, 6, 8), asked(5, 9))

    assert day["status"] == "differs"
    assert day["worst"].startswith("10:07 close 109.0 for none")
    assert (day["minutes_compared"], day["minutes_unseen"]) == (3, 0)


def test_the_minute_of_ours_alone_with_the_most_volume_comes_first():
    script = Script().session("s1", alive=(0, 300))
    script.snapshot(0, last_price=100.0, cumulative_volume=10.0, trade=-1)
    for second, volume in ((70, 11.0), (130, 12.0), (190, 62.0)):
        script.trade(second, 100.0, volume, trade=second - 1)
    day, _ = reconciled(script, HISTORY.to_frame(), asked(0, 4))

    assert day["status"] == "differs"
    assert [each[:5] for each in day["worst"].split("; ")] == ["10:03", "10:01", "10:02"]


def test_a_minute_the_vendor_was_not_asked_about_is_no_disagreement(script: Script):
    day, _ = reconciled(script, official(script, 5, 6), asked(5, 7))

    assert (day["status"], day["worst"]) == ("agrees", None)


def test_the_last_trades_of_a_minute_may_come_in_the_next():
    late = Script().session("s1", alive=(0, 240))
    late.snapshot(0, last_price=100.0, cumulative_volume=10.0, trade=-1)
    late.trade(100, 100.0, 11.0, trade=99)
    late.trade(120.4, 100.1, 13.0, trade=120.1)  # official in minute 1
    rows = [("BINANCE", SYMBOL, START + MINUTE, 100.0, 100.1, 100.0, 100.1, 3.0, START)]
    history = pl.DataFrame(rows, schema=HISTORY, orient="row")
    day, _ = reconciled(late, history, asked(0, 3))

    assert (day["status"], day["volume_residual"]) == ("agrees", 0.0)
