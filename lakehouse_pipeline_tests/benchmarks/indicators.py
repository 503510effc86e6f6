"""All indicators over 50 symbols and 30 days of minutes, beside TA-Lib and polars-talib.

The peers' C code is called on bare arrays or columns; ours also finds the stretches between gaps.
Values are compared before anything is timed. The libraries take turns, and each figure is the
median of the turns' ratios, so that a busy machine slows all of them. VWAP, which no peer has, is
timed apart. So is a day on which each symbol has a gap every five minutes, where a stretch is cut
after stretch of five bars: it may not cost more than twenty times the same day without gaps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import polars_talib
import talib

from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.indicators import STUDIES, Study, widen
from lakehouse_pipeline.market.stretches import with_stretches
from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline_tests.benchmarks.lines import Line

SYMBOLS, DAYS, TURNS = 50, 30, 3
MINUTES_A_DAY = 1440
GAPS_COST = 20.0
START = datetime(2026, 1, 1, tzinfo=UTC)
NO_GAPS = pl.DataFrame(schema=schemas.GAPS)
SHARED = [build() for name, build in STUDIES.items() if name != "vwap"]
Columns = Mapping[str, np.ndarray]


def random_bars(symbols: int, days: int) -> pl.DataFrame:
    """Return seeded minute bars: a walk of cents with its highs, lows and volumes."""
    random = np.random.default_rng(7)
    minutes = days * MINUTES_A_DAY
    opens = pl.datetime_range(START, START + minutes * MINUTE, MINUTE, closed="left", eager=True)
    parts = []
    for number in range(symbols):
        close = 10_000 + random.integers(-50, 51, minutes).cumsum() / 100
        reach = random.integers(0, 40, (2, minutes)) / 100
        parts.append(
            pl.DataFrame(
                {
                    "symbol": [f"X:S{number:02}"] * minutes,
                    "open_time": opens.cast(schemas.UTC_TIME),
                    "high": close + reach[0],
                    "low": close - reach[1],
                    "close": close,
                    "volume": random.integers(1, 10_000, minutes) / 1000,
                    "flags": np.zeros(minutes, np.int32),
                }
            )
        )
    return pl.concat(parts)


def with_ours(
    bars: pl.DataFrame, studies: list[Study], gaps: pl.DataFrame = NO_GAPS
) -> pl.DataFrame:
    return widen(with_stretches(bars, gaps), studies)


def gap_every(minutes: int, bars: pl.DataFrame) -> pl.DataFrame:
    """Return a short gap in every so many of *bars* of each symbol."""
    start = pl.col("open_time") + pl.duration(seconds=20)
    named = bars.filter(pl.col("open_time").dt.minute() % minutes == 0).select(
        "symbol", start=start, end=start + pl.duration(seconds=5), cause=pl.lit("feed_gap")
    )
    return pl.concat([NO_GAPS, named], how="diagonal_relaxed")


def with_talib(bars: Mapping[str, Columns]) -> dict[str, Columns]:
    return {symbol: _talib(columns) for symbol, columns in bars.items()}


def with_polars_talib(bars: pl.DataFrame) -> pl.DataFrame:
    close, high, low, volume = (pl.col(name) for name in ("close", "high", "low", "volume"))
    macd, bands = polars_talib.macd(close), polars_talib.bbands(close, 20, 2.0, 2.0)
    plots = {
        "sma": polars_talib.sma(close, 20),
        "ema": polars_talib.ema(close, 20),
        "rsi": polars_talib.rsi(close, 14),
        "macd": macd,
        "bollinger": bands,
        "atr": polars_talib.atr(high, low, close, 14),
        "obv": polars_talib.obv(close, volume),
    }
    return bars.with_columns(plot.over("symbol").alias(f"{name}_") for name, plot in plots.items())


def _talib(columns: Columns) -> Columns:
    close, high, low, volume = (columns[name] for name in ("close", "high", "low", "volume"))
    macd, signal, histogram = talib.MACD(close)
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    return {
        "sma": talib.SMA(close, 20),
        "ema": talib.EMA(close, 20),
        "rsi": talib.RSI(close, 14),
        "macd": macd,
        "signal": signal,
        "histogram": histogram,
        "upper": upper,
        "middle": middle,
        "lower": lower,
        "atr": talib.ATR(high, low, close, 14),
        "obv": talib.OBV(close, volume),
    }


def as_arrays(bars: pl.DataFrame) -> dict[str, Columns]:
    return {
        str(symbol): {name: part[name].to_numpy() for name in ("close", "high", "low", "volume")}
        for (symbol,), part in bars.group_by("symbol", maintain_order=True)
    }


def assert_equal(bars: pl.DataFrame) -> None:
    """Every plot of every symbol is the peers' once it has settled, to 1e-9."""
    ours = with_ours(bars, SHARED)
    theirs = with_talib(as_arrays(bars))
    frames = with_polars_talib(bars)
    for (symbol,), part in ours.group_by("symbol", maintain_order=True):
        for study in SHARED:
            for plot in study.plots:
                np.testing.assert_allclose(
                    part[plot].to_numpy()[study.memory :],
                    theirs[str(symbol)][plot][study.memory :],
                    rtol=1e-9,
                    atol=1e-9,
                    err_msg=f"{symbol} {plot}",
                )
        peer = frames.filter(symbol=symbol)
        np.testing.assert_allclose(peer["rsi_"].to_numpy(), theirs[str(symbol)]["rsi"], rtol=1e-9)


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def run(folder: Path, *, scale: float, say: Callable[[str], object]) -> list[Line]:  # noqa: ARG001  # nothing is stored
    """Compare at *scale* of 50 symbols and 30 days."""
    bars = random_bars(max(round(SYMBOLS * scale), 2), DAYS if scale >= 1 else 2)
    say(f"{bars.height} bars of {bars['symbol'].n_unique()} symbols")
    assert_equal(bars)
    say("agrees with TA-Lib to 1e-9, and RSI with polars-talib")
    arrays, vwap = as_arrays(bars), STUDIES["vwap"]()
    turns = [
        (
            seconds(lambda: with_ours(bars, SHARED)),
            seconds(lambda: with_talib(arrays)),
            seconds(lambda: with_polars_talib(bars)),
            seconds(lambda: with_ours(bars, [vwap])),
        )
        for _ in range(TURNS)
    ]
    ours = statistics.median(turn[0] for turn in turns)
    days = bars.filter(pl.col("open_time") < START + 2 * MINUTES_A_DAY * MINUTE)
    gaps = gap_every(5, days)
    assert with_stretches(days, gaps)["stretch"].n_unique() > MINUTES_A_DAY / 5
    broken = statistics.median(
        seconds(lambda: with_ours(days, SHARED, gaps)) / seconds(lambda: with_ours(days, SHARED))
        for _ in range(TURNS)
    )
    return [
        Line("time / TA-Lib on arrays", statistics.median(a / b for a, b, _, _ in turns), 8),
        Line("time / polars-talib", statistics.median(a / c for a, _, c, _ in turns), 8),
        Line("VWAP's share beside", statistics.median(d / a for a, _, _, d in turns)),
        Line("two days, a gap every five minutes / none", broken, limit=GAPS_COST),
        Line("bars a second, seven indicators", bars.height / ours / 1e6, unit="million"),
    ]
