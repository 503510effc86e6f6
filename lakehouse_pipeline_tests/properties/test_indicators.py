"""Indicators against their slow definitions, over any prices and any holes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from math import sqrt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

from lakehouse_pipeline.market import indicators, schemas
from lakehouse_pipeline.market.indicators import STUDIES, compute, widen
from lakehouse_pipeline.market.stretches import with_stretches
from lakehouse_pipeline.market.windows import MINUTE

START = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)
NO_GAPS = pl.DataFrame(schema=schemas.GAPS)
Values = list[float | None]
Bar = tuple[float, float, float, float]  # high, low, close, volume


@st.composite
def bar_lists(draw: st.DrawFn) -> list[Bar]:
    """Return minutes of one symbol in cents and thousandths, some of them flat."""
    bars = []
    close = draw(st.integers(1_000, 1_000_000))
    for _ in range(draw(st.integers(1, 60))):
        close = max(close + draw(st.integers(-300, 300)), 1)
        up, down = draw(st.tuples(st.integers(0, 50), st.integers(0, 50)))
        low = max(close - down, 1)
        volume = draw(st.integers(0, 5_000)) / 1000
        bars.append(((close + up) / 100, low / 100, close / 100, volume))
    return bars


def frame_of(bars: list[Bar], symbol: str = "X:A") -> pl.DataFrame:
    columns = dict(zip(("high", "low", "close", "volume"), zip(*bars, strict=True), strict=True))
    return pl.DataFrame(columns).select(
        pl.lit("X").alias("exchange"),
        pl.lit(symbol).alias("symbol"),
        pl.Series("open_time", [START + n * MINUTE for n in range(len(bars))], schemas.UTC_TIME),
        *("high", "low", "close", "volume"),
        pl.lit(0, pl.Int32).alias("flags"),
    )


def average(values: list[float], length: int) -> Values:
    return [
        sum(values[n + 1 - length : n + 1]) / length if n + 1 >= length else None
        for n in range(len(values))
    ]


def recursive(values: Values, length: int, alpha: float) -> Values:
    """The plain average of the first *length* values there are, then each value's share."""
    result: Values = []
    seed: list[float] = []
    current: float | None = None
    for value in values:
        if value is not None and current is not None:
            current += alpha * (value - current)
        elif value is not None:
            seed.append(value)
            current = sum(seed) / length if len(seed) == length else None
        result.append(current)
    return result


def minus(left: Values, right: Values) -> Values:
    return [None if a is None or b is None else a - b for a, b in zip(left, right, strict=True)]


def slow_sma(bars: list[Bar]) -> dict[str, Values]:
    return {"sma": average([bar[2] for bar in bars], 5)}


def slow_ema(bars: list[Bar]) -> dict[str, Values]:
    return {"ema": recursive([bar[2] for bar in bars], 5, 2 / 6)}


def slow_rsi(bars: list[Bar]) -> dict[str, Values]:
    closes = [bar[2] for bar in bars]
    changes = [None, *(b - a for a, b in pairwise(closes))]
    gain = recursive([None if c is None else max(c, 0.0) for c in changes], 5, 1 / 5)
    loss = recursive([None if c is None else max(-c, 0.0) for c in changes], 5, 1 / 5)
    values: Values = []
    for up, down in zip(gain, loss, strict=True):
        if up is None or down is None:
            values.append(None)
        else:
            values.append(100.0 if down == 0 else 100 - 100 / (1 + up / down))
    return {"rsi": values}


def slow_macd(bars: list[Bar]) -> dict[str, Values]:
    closes: Values = [bar[2] for bar in bars]
    line = minus(recursive(closes, 3, 2 / 4), recursive(closes, 6, 2 / 7))
    signal = recursive(line, 4, 2 / 5)
    return {"macd": line, "signal": signal, "histogram": minus(line, signal)}


def slow_bollinger(bars: list[Bar]) -> dict[str, Values]:
    closes = [bar[2] for bar in bars]
    plots: dict[str, Values] = {"middle": average(closes, 5), "upper": [], "lower": []}
    for n, middle in enumerate(plots["middle"]):
        last = closes[n - 4 : n + 1]
        reach = None if middle is None else 2 * sqrt(sum((x - middle) ** 2 for x in last) / 5)
        plots["upper"].append(None if middle is None else middle + reach)
        plots["lower"].append(None if middle is None else middle - reach)
    return plots


def slow_atr(bars: list[Bar]) -> dict[str, Values]:
    ranges: Values = [None]
    for (_, _, before, _), (high, low, _, _) in pairwise(bars):
        ranges.append(max(high, before) - min(low, before))
    return {"atr": recursive(ranges, 5, 1 / 5)}


def slow_vwap(bars: list[Bar]) -> dict[str, Values]:
    """The days begin where bars do, unless the first of them was not seen from midnight on."""
    values: Values = []
    money = volume = float("nan")
    for n, bar in enumerate(bars):
        if (START + n * MINUTE).time().isoformat() == "00:00:00":
            money = volume = 0.0
        money += sum(bar[:3]) / 3 * bar[3]
        volume += bar[3]
        values.append(money / volume if volume > 0 else None)
    return {"vwap": values}


def slow_obv(bars: list[Bar]) -> dict[str, Values]:
    total = bars[0][3]
    values: Values = [total]
    for (_, _, before, _), (_, _, close, volume) in pairwise(bars):
        total += volume * ((close > before) - (close < before))
        values.append(total)
    return {"obv": values}


CASES = {
    "sma": (indicators.sma(5), slow_sma),
    "ema": (indicators.ema(5), slow_ema),
    "rsi": (indicators.rsi(5), slow_rsi),
    "macd": (indicators.macd(3, 6, 4), slow_macd),
    "bollinger": (indicators.bollinger(5), slow_bollinger),
    "atr": (indicators.atr(5), slow_atr),
    "vwap": (indicators.vwap(), slow_vwap),
    "obv": (indicators.obv(), slow_obv),
}


def test_every_study_has_a_slow_definition():
    assert CASES.keys() == STUDIES.keys()


@pytest.mark.parametrize("name", CASES)
@given(bars=bar_lists())
def test_equals_its_slow_definition(name: str, bars: list[Bar]):
    study, slow = CASES[name]

    wide = widen(with_stretches(frame_of(bars), NO_GAPS), [study])

    for plot, expected in slow(bars).items():
        # A standard deviation of equal prices is zero up to the square root of the last digit.
        tolerance = 1e-4 if name == "bollinger" else 1e-7
        wanted = pl.Series(plot, expected, pl.Float64)
        assert_series_equal(wide[plot], wanted, rel_tol=1e-9, abs_tol=tolerance)


@given(bars=bar_lists(), gap=st.integers(0, 60), other=bar_lists())
def test_a_stretch_is_what_it_is_alone(bars: list[Bar], gap: int, other: list[Bar]):
    """Neither what was before a gap nor another symbol changes one digit of a value."""
    studies = [study for study, _ in CASES.values()]
    start = START + gap * MINUTE
    row = ("g", "X", "X:A", start, start + MINUTE / 2, "feed_gap", "", None, None, None)
    gaps = pl.DataFrame([row], schema=schemas.GAPS, orient="row")
    both = pl.concat([frame_of(bars), frame_of(other, "X:B")])
    after = frame_of(bars).filter(pl.col("open_time") >= start)

    values = compute(with_stretches(both, gaps), studies)

    mine = values.filter(pl.col("symbol") == "X:A", pl.col("open_time") >= start)
    assert_frame_equal(mine, compute(with_stretches(after, gaps), studies), check_exact=True)
    theirs = compute(with_stretches(frame_of(other, "X:B"), NO_GAPS), studies)
    assert_frame_equal(values.filter(symbol="X:B"), theirs, check_exact=True)


@st.composite
def closes_that_rest(draw: st.DrawFn) -> list[float]:
    """Return a walk of a few hundred cents that stands still now and then, for long or for ever."""
    closes = [draw(st.integers(1_000, 100_000))]
    for _ in range(draw(st.integers(1, 6))):
        for move in draw(st.lists(st.integers(-300, 300), min_size=1, max_size=60)):
            closes.append(max(closes[-1] + move, 1))
        closes += [closes[-1]] * draw(st.integers(0, 150))
    return [close / 100 for close in closes]


@pytest.mark.parametrize("name", ["sma", "ema", "rsi", "macd", "bollinger"])
@given(closes=closes_that_rest(), start=st.integers(0, 200))
def test_where_reading_starts_does_not_show_in_a_settled_value(
    name: str, closes: list[float], start: int
):
    study = {"rsi": indicators.rsi(2), "ema": indicators.ema(3)}.get(name, CASES[name][0])
    frame = frame_of([(close, close, close, 1.0) for close in closes])

    late = compute(with_stretches(frame[start:], NO_GAPS), [study])

    whole = compute(with_stretches(frame, NO_GAPS), [study])
    settled = late.filter(pl.col("flags") == 0)
    both = settled.join(whole, on=["open_time", "plot"], how="left", maintain_order="left")
    # A deviation of equal prices is the root of the last digit; others show theirs only.
    tolerance = 1e-4 if name == "bollinger" else 1e-8
    assert_series_equal(
        both["value"], both["value_right"], check_names=False, rel_tol=1e-9, abs_tol=tolerance
    )


@given(bars=bar_lists(), starts=st.lists(st.integers(0, 60), max_size=20))
def test_stretches_computed_together_are_what_each_is_alone(bars: list[Bar], starts: list[int]):
    studies = [study for study, _ in CASES.values()]
    rows = [
        ("g", "X", "X:A", START + n * MINUTE, START + (n + 1) * MINUTE, "feed_gap", "", *[None] * 3)
        for n in starts
    ]
    stretches = with_stretches(
        pl.concat([frame_of(bars), frame_of(bars[::-1], "X:B")]),
        pl.DataFrame(rows, schema=schemas.GAPS, orient="row"),
    )

    together = compute(stretches, studies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indicators, "SHORT", 0)
        each_alone = compute(stretches, studies)

    assert_frame_equal(together, each_alone, check_exact=True)
