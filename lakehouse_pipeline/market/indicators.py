"""Indicators over bars of any interval, as polars expressions.

Each study names its plots and how many bars it needs before its first value. Values are computed
inside a *stretch*: the bars of one symbol between two real gaps. At a gap a study starts again and
is null until it is warm, so it never pretends to know prices nobody saw. Quiet minutes are no gaps,
nor are those that official bars have filled.
A new study is one function here and one line in ``STUDIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from . import schemas
from .causes import BLIND
from .quality import Flag
from .windows import MINUTE

CLOSE = pl.col("close")
HIGH = pl.col("high")
LOW = pl.col("low")
VOLUME = pl.col("volume")
STRETCH = "stretch"
COMPUTED = "computed"


@dataclass(frozen=True, slots=True)
class Study:
    """A named set of plots; ``warm_up`` is the number of bars before the last plot's first value.

    ``memory`` is the number of bars after which what came before no longer shows in the 15 digits
    of a value: what an incremental rebuild has to read before its window, and how long a value
    that starts elsewhere (on the feed's own chart) may differ.
    """

    name: str
    parameters: Mapping[str, int | float]
    plots: Mapping[str, pl.Expr]
    warm_up: int
    memory: int

    @property
    def label(self) -> str:
        """The parameters as text, in their order: ``fast=12,slow=26,signal=9``."""
        return ",".join(f"{name}={value}" for name, value in self.parameters.items())


def sma(length: int = 20) -> Study:
    """Return the simple moving average of the close."""
    plots = {"sma": CLOSE.rolling_mean(length)}
    return Study("sma", {"length": length}, plots, warm_up=length, memory=length)


def ema(length: int = 20) -> Study:
    """Return the exponential moving average of the close, seeded with its first simple average."""
    plots = {"ema": _seeded_ema(CLOSE, length, skip=0)}
    return Study("ema", {"length": length}, plots, length, _fading(2 / (length + 1), length))


def rsi(length: int = 14) -> Study:
    """Return Wilder's relative strength index, 0 to 100; 100 where nothing was ever lost."""
    change = CLOSE.diff()
    gain = _wilder(change.clip(lower_bound=0), length, skip=1)
    loss = _wilder((-change).clip(lower_bound=0), length, skip=1)
    value = pl.when(loss == 0).then(100.0).otherwise(100.0 - 100.0 / (1.0 + gain / loss))
    plots = {"rsi": pl.when(loss.is_not_null()).then(value)}
    return Study("rsi", {"length": length}, plots, length + 1, _fading(1 / length, length + 1))


def macd(fast: int = 12, slow: int = 26, signal: int = 9) -> Study:
    """Return MACD line, its signal and their difference; every average seeded with a simple one."""
    line = _seeded_ema(CLOSE, fast, skip=0) - _seeded_ema(CLOSE, slow, skip=0)
    signal_line = _seeded_ema(line, signal, skip=slow - 1)
    plots = {"macd": line, "signal": signal_line, "histogram": line - signal_line}
    parameters = {"fast": fast, "slow": slow, "signal": signal}
    warm_up = slow + signal - 1
    memory = _fading(2 / (max(slow, signal) + 1), warm_up) + signal
    return Study("macd", parameters, plots, warm_up, memory)


def bollinger(length: int = 20, width: float = 2.0) -> Study:
    """Return the simple average and *width* population standard deviations around it."""
    middle = CLOSE.rolling_mean(length)
    reach = width * CLOSE.rolling_std(length, ddof=0)
    plots = {"middle": middle, "upper": middle + reach, "lower": middle - reach}
    return Study("bollinger", {"length": length, "width": width}, plots, length, length)


def atr(length: int = 14) -> Study:
    """Return Wilder's average true range, in price units."""
    before = CLOSE.shift(1)
    reach = pl.max_horizontal(HIGH - LOW, (HIGH - before).abs(), (LOW - before).abs())
    true_range = pl.when(before.is_not_null()).then(reach)
    plots = {"atr": _wilder(true_range, length, skip=1)}
    return Study("atr", {"length": length}, plots, length + 1, _fading(1 / length, length + 1))


def vwap() -> Study:
    """Return the volume-weighted average of the typical price since 00:00 UTC."""
    typical = (HIGH + LOW + CLOSE) / 3
    value = _sum_since_midnight(typical * VOLUME) / _sum_since_midnight(VOLUME)
    return Study("vwap", {}, {"vwap": pl.when(value.is_finite()).then(value)}, 1, 1440)


def obv() -> Study:
    """Return on-balance volume, counted from the first bar of the stretch."""
    signed = pl.when(CLOSE.shift(1).is_null()).then(VOLUME).otherwise(CLOSE.diff().sign() * VOLUME)
    return Study("obv", {}, {"obv": signed.cum_sum()}, 1, 1440)


STUDIES: Mapping[str, Callable[..., Study]] = {
    "sma": sma,
    "ema": ema,
    "rsi": rsi,
    "macd": macd,
    "bollinger": bollinger,
    "atr": atr,
    "vwap": vwap,
    "obv": obv,
}


def with_stretches(
    bars: pl.DataFrame, gaps: pl.DataFrame, step: timedelta = MINUTE
) -> pl.DataFrame:
    """Return *bars* of *step*, sorted, with the number of the stretch each belongs to.

    A new stretch starts at the first bar that opens after a gap of its symbol began. A bar during
    which a gap began still belongs to the stretch before it.
    """
    ordered = bars.sort("symbol", "open_time")
    breaks = _unfilled(ordered, gaps, step).sort("symbol", "open_time")
    numbered = breaks.with_columns(pl.int_range(1, pl.len() + 1).over("symbol").alias(STRETCH))
    # The library cannot see that both sides are sorted within each symbol; they are, just above.
    joined = ordered.join_asof(
        numbered, on="open_time", by="symbol", strategy="backward", check_sortedness=False
    )
    return joined.with_columns(pl.col(STRETCH).fill_null(0))


def as_one_stretch(
    bars: pl.DataFrame, _gaps: pl.DataFrame, _step: timedelta = MINUTE
) -> pl.DataFrame:
    """Return *bars*, sorted, as one stretch a symbol: values are carried across every gap."""
    return bars.sort("symbol", "open_time").with_columns(pl.lit(0).alias(STRETCH))


def widen(bars: pl.DataFrame, studies: Iterable[Study]) -> pl.DataFrame:
    """Return *bars* (with stretches) and one more column a plot, named after the plot."""
    plots = {name: plot for study in studies for name, plot in study.plots.items()}
    return bars.with_columns(
        plot.over("symbol", STRETCH).alias(name) for name, plot in plots.items()
    )


def compute(bars: pl.DataFrame, studies: Iterable[Study]) -> pl.DataFrame:
    """Return every value of *studies* over *bars* (with stretches), in the indicators' schema.

    One row a symbol, bar, study and plot. The value is null, and flagged ``WARMING``, where the
    study is not warm; it is flagged ``SETTLING`` where it still shows at which bar it began.
    """
    numbered = bars.with_columns(bars_seen=pl.int_range(1, pl.len() + 1).over("symbol", STRETCH))
    long = [
        numbered.select(
            "exchange",
            "symbol",
            "open_time",
            pl.lit(study.name).alias("name"),
            pl.lit(study.label).alias("parameters"),
            pl.lit(plot).alias("plot"),
            expression.over("symbol", STRETCH).alias("value"),
            pl.lit(COMPUTED).alias("source"),
            "flags",
            "bars_seen",
        ).with_columns(flags=_flags(study))
        for study in studies
        for plot, expression in study.plots.items()
    ]
    if not long:
        return pl.DataFrame(schema=schemas.INDICATORS)
    frame = pl.concat(long).drop("bars_seen").cast(schemas.INDICATORS)
    return frame.sort("symbol", "open_time", "name", "parameters", "plot")


def _flags(study: Study) -> pl.Expr:
    """Return the bar's flags and what is to be said of a value after ``bars_seen`` bars."""
    bars_seen = pl.col("bars_seen")
    return (
        pl.when(bars_seen >= study.memory)
        .then("flags")
        .when((bars_seen < study.warm_up) & pl.col("value").is_null())
        .then(pl.col("flags") | int(Flag.WARMING))
        .otherwise(pl.col("flags") | int(Flag.SETTLING))
    )


def _unfilled(bars: pl.DataFrame, gaps: pl.DataFrame, step: timedelta) -> pl.DataFrame:
    """Return from when on something was missed: symbol and time, a row for each interval."""
    blind = gaps.filter(pl.col("cause").is_in(sorted(BLIND))).select("symbol", "start", "end")
    opens = pl.datetime_ranges(pl.col("start").dt.truncate(step), "end", step, closed="left")
    filled = bars.filter(pl.col("flags") & int(Flag.FILLED) > 0).select("symbol", "open_time")
    return (
        blind.with_columns(open_time=opens)
        .explode("open_time")
        .join(filled, on=["symbol", "open_time"], how="anti")
        .select("symbol", pl.max_horizontal("start", "open_time").alias("open_time"))
    )


def _seeded_ema(source: pl.Expr, length: int, *, skip: int) -> pl.Expr:
    return _recursive(source, length, skip=skip, alpha=2 / (length + 1))


def _wilder(source: pl.Expr, length: int, *, skip: int) -> pl.Expr:
    return _recursive(source, length, skip=skip, alpha=1 / length)


def _recursive(source: pl.Expr, length: int, *, skip: int, alpha: float) -> pl.Expr:
    """Average *source*, null in its first *skip* rows: a simple average first, then recursion."""
    seed_at = skip + length - 1
    # Not mean(): its last digit depends on what else is computed at the same time.
    seed = source.slice(skip, length).rolling_mean(length).last()
    row = pl.int_range(pl.len())
    seeded = pl.when(row == seed_at).then(seed).otherwise(pl.when(row > seed_at).then(source))
    return seeded.ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True)


def _sum_since_midnight(source: pl.Expr) -> pl.Expr:
    """Sum *source* from 00:00 UTC on: windows do not nest, so a day's start is subtracted."""
    day = pl.col("open_time").dt.truncate("1d")
    total = source.fill_null(0).cum_sum()
    opens = (day != day.shift(1)).fill_null(value=True)
    return total - pl.when(opens).then(total - source.fill_null(0)).forward_fill()


def _fading(alpha: float, warm_up: int) -> int:
    """Return the bars after which a recursion with *alpha* has forgotten its seed to 1e-15."""
    steps = 0
    weight = 1.0
    while weight > 1e-15:
        weight *= 1 - alpha
        steps += 1
    return warm_up + steps
