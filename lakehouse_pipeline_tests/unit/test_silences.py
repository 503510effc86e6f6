"""Silence that is no gap: we saw, and nothing came."""

from __future__ import annotations

import polars as pl

from lakehouse_pipeline.market.causes import BLIND, Cause
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.schemas import COVERAGE, GAPS, QUOTES
from lakehouse_pipeline.market.silences import find_silences
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline_tests.scripted import START, Script, window

HOUR = window(0, 3600)
NAMES = [f"BINANCE:{name}" for name in ("A", "B", "C")]


def venue(*trades: tuple[str, float], start=START) -> Script:
    script = Script(start=start).session("s1", alive=(0, 3605))
    for name in NAMES:
        script.snapshot(0, symbol=name, last_price=1.0, cumulative_volume=1.0, trade=-1)
    for name, second in trades:
        script.trade(second + 0.5, 1.0, 1.0, symbol=f"BINANCE:{name}", trade=second)
    return script


def busy(name: str, *spans: tuple[int, int]) -> list[tuple[str, float]]:
    return [(name, second) for a, b in spans for second in range(a, b, 30)]


def found(script: Script, within: TimeWindow = HOUR) -> list[tuple[str, str, float, float]]:
    rows = find_silences(script.quotes, script.coverage, within, script.time(3600))
    zero = script.start
    return [
        (symbol[-1], cause, (start - zero).total_seconds(), (end - zero).total_seconds())
        for symbol, cause, start, end in rows.select("symbol", "cause", "start", "end").iter_rows()
    ]


def test_a_symbol_that_does_not_trade_while_others_do_is_quiet():
    script = venue(*busy("A", (0, 3600)), *busy("B", (0, 600), (1200, 3600)), *busy("C", (0, 3600)))

    assert found(script) == [("B", "quiet_market", 571, 1200)]


def test_a_venue_without_any_trade_is_halted():
    spans = (0, 600), (1800, 3600)
    script = venue(*busy("A", *spans), *busy("B", *spans), *busy("C", *spans))

    assert found(script) == [(name, "venue_halt", 571, 1800) for name in "ABC"]


def test_short_silences_are_not_told():
    script = venue(*(t for name in "ABC" for t in busy(name, (0, 900), (1150, 3600))))

    assert found(script) == []


def test_an_outage_is_no_silence():
    script = Script().session("s1", alive=(0, 60)).session("s2", alive=(1200, 3605))
    script.snapshot(0, last_price=1.0, cumulative_volume=1.0, trade=-1)
    script.snapshot(1200, "s2", last_price=1.0, cumulative_volume=1.0, trade=-1)
    for second in range(1200, 3600, 60):
        script.trade(second + 1, 1.0, 1.0, session="s2", trade=second)

    assert found(script) == []


def test_a_delayed_feed_is_told_apart():
    script = venue(*busy("A", (0, 1000)))
    script.update(1000, symbol=NAMES[0], update_mode="delayed_streaming_900")
    for second in range(1000, 2000, 30):
        script.trade(second + 0.5, 1.0, 1.0, symbol=NAMES[0], trade=second)
    script.update(2000, symbol=NAMES[0], update_mode="streaming")
    for second in range(2000, 3600, 30):
        script.trade(second + 0.5, 1.0, 1.0, symbol=NAMES[0], trade=second)
    for other in NAMES[1:]:
        script.mark(Mark.UNSUBSCRIBED, "s1", 1, symbol=other)

    assert found(script) == [("A", "upstream_delayed", 1000, 2000)]


def test_over_midnight_it_is_cut_and_keeps_its_name():
    script = venue(*busy("A", (0, 600)), start=START.replace(hour=23, minute=30))
    days = [TimeWindow.of_day(day) for day in window(0, 3600, of=script.start).days()]
    parts = [
        find_silences(script.quotes, script.coverage, day, script.time(3600)).filter(
            symbol=NAMES[0]
        )
        for day in days
    ]

    both = pl.concat(parts)
    assert both["gap_id"].n_unique() == 1
    assert both["end"][0] == both["start"][1] == days[1].start


def test_none_of_these_is_blindness():
    assert BLIND.isdisjoint({Cause.QUIET_MARKET, Cause.VENUE_HALT, Cause.UPSTREAM_DELAYED})


def test_without_rows_there_is_no_silence():
    silences = find_silences(QUOTES.to_frame(), COVERAGE.to_frame(), HOUR, HOUR.end)

    assert silences.schema == GAPS
    assert silences.is_empty()
