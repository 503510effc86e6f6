"""A counter's kind is told from how it falls; a rolling one gives minutes with history's help."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from lakehouse_pipeline.market.bars import build_bars_1s, with_coverage
from lakehouse_pipeline.market.counters import compensate, detect_kinds
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.volume import Basis, CounterKind
from lakehouse_pipeline.market.windows import DAY, MINUTE
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script, window

DAY_SECONDS = 86_400
WATCHED = 600  # seconds recorded, after a day that was not
SPAN = window(0, WATCHED)
FAR = START + DAY


@dataclass
class Market:
    """A day and ten minutes of volume by the second; each second's trades show as it ends."""

    lots: np.ndarray  # of a hundredth

    def counter(self, second: int, kind: CounterKind) -> float:
        """The counter at the end of *second* of the recording."""
        now = DAY_SECONDS + second + 1
        start = now - DAY_SECONDS
        if kind == CounterKind.ROLLING_MINUTE:
            start = (now - 1) // 60 * 60 - DAY_SECONDS
        if kind == CounterKind.SESSION:
            start = 0
        return int(self.lots[start:now].sum()) / 100

    def minute(self, number: int) -> float:
        """What was traded in a minute, counted from the start of the recording."""
        start = DAY_SECONDS + 60 * number
        return int(self.lots[start : start + 60].sum()) / 100


@pytest.fixture(scope="module")
def market() -> Market:
    random = np.random.default_rng(5)
    return Market(random.integers(0, 10_000, DAY_SECONDS + WATCHED))


def recorded(market: Market, kind: CounterKind) -> Script:
    script = Script().session("s1", alive=(-60, WATCHED + 60))
    script.snapshot(-0.5, last_price=1.0, cumulative_volume=market.counter(-1, kind), trade=-1)
    for second in range(WATCHED):
        volume = market.counter(second, kind)
        script.trade(second + 0.95, 1.0, volume, trade=second)
    return script


def history(market: Market) -> pl.DataFrame:
    rows = [
        ("BINANCE", SYMBOL, START - DAY + n * MINUTE, 1.0, 1.0, 1.0, 1.0, market.minute(n - 1440))
        for n in range(12)
    ]
    return pl.DataFrame([(*row, START) for row in rows], schema=HISTORY, orient="row")


@pytest.mark.parametrize(
    "kind", [CounterKind.SESSION, CounterKind.ROLLING, CounterKind.ROLLING_MINUTE]
)
def test_the_kind_is_told_from_the_steps(market: Market, kind: CounterKind):
    found = detect_kinds(recorded(market, kind).quotes)

    assert found.select("symbol", "counter_kind").row(0) == (SYMBOL, kind)
    assert "steps fell" in found["counter_evidence"].item()


def test_a_reset_at_midnight_is_a_session_s():
    script = Script(start=START.replace(hour=23, minute=59)).session("s1", alive=(0, 200))
    for second in range(120):
        volume = 5000.0 + second if second < 60 else second - 59.0
        script.trade(second + 0.5, 1.0, volume, trade=second)

    found = detect_kinds(script.quotes)

    assert found["counter_kind"].item() == CounterKind.SESSION
    assert found["counter_evidence"].item().endswith("1 of 1 midnights reset it")


def test_a_few_steps_prove_nothing():
    script = Script().trade(1, 1.0, 1.0).trade(2, 1.0, 2.0).trade(3, 1.0, 3.0)

    assert detect_kinds(script.quotes)["counter_kind"].item() == CounterKind.UNKNOWN


@pytest.mark.parametrize("kind", [CounterKind.ROLLING, CounterKind.ROLLING_MINUTE])
def test_a_rolling_counter_gives_no_volume_by_itself(market: Market, kind: CounterKind):
    script = recorded(market, kind)

    bars = build_bars_1s(script.quotes, script.coverage, SPAN, FAR, kinds={SYMBOL: kind})

    assert bars.height == WATCHED
    assert bars["volume"].null_count() == WATCHED
    assert set(bars["volume_basis"]) == {Basis.UNKNOWN}
    assert bars["counter_end"][59] == market.counter(59, kind)


@pytest.mark.parametrize("kind", [CounterKind.ROLLING, CounterKind.ROLLING_MINUTE])
def test_with_yesterday_s_minutes_a_minute_of_it_is_exact(market: Market, kind: CounterKind):
    script, kinds = recorded(market, kind), {SYMBOL: kind}
    bars = build_bars_1s(script.quotes, script.coverage, SPAN, FAR, kinds=kinds)
    minutes = with_coverage(roll_up(bars, MINUTE), script.coverage, MINUTE)

    made = compensate(minutes, history(market), script.coverage, kinds)

    assert made["volume"].to_list() == [None, *(market.minute(n) for n in range(1, 10))]
    assert made["volume_basis"][1] == Basis.ROLLED_COMP
    assert not made["flags"][1] & Flag.VOLUME_UNKNOWN
    assert made.drop("volume", "volume_basis", "flags").equals(
        minutes.drop("volume", "volume_basis", "flags")
    )


def test_without_history_it_stays_unknown(market: Market):
    script, kinds = recorded(market, CounterKind.ROLLING), {SYMBOL: CounterKind.ROLLING}
    bars = build_bars_1s(script.quotes, script.coverage, SPAN, FAR, kinds=kinds)
    minutes = roll_up(bars, MINUTE)

    assert compensate(minutes, HISTORY.to_frame(), script.coverage, kinds).equals(minutes)


def test_a_session_s_minutes_are_left_alone(market: Market):
    script = recorded(market, CounterKind.SESSION)
    minutes = roll_up(build_bars_1s(script.quotes, script.coverage, SPAN, FAR), MINUTE)

    assert compensate(minutes, history(market), script.coverage, {}).equals(minutes)


def test_what_a_gap_cost_a_rolling_counter_is_not_known():
    script = Script().session("a", alive=(0, 20), ended=Ending.CLOSED)
    script.snapshot(0.5, "a", last_price=1.0, cumulative_volume=10.0, trade=-9)
    script.mark(Mark.ALIVE, "b", 40, 90)
    script.snapshot(40.5, "b", last_price=1.0, cumulative_volume=12.0, trade=39)

    gaps = find_gaps(
        script.quotes,
        script.coverage,
        SPAN,
        START + timedelta(seconds=80),
        kinds={SYMBOL: CounterKind.ROLLING},
    )

    assert gaps["missed_volume"].to_list() == [None]
