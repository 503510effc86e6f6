"""Indicators over bars of any interval, as polars expressions.

Each study names its plots and how many bars it needs before its first value. Values are computed
inside a *stretch* (see ``stretches``): the bars of one symbol between two real gaps. At a gap a
study starts again and is null until it is warm, so it never pretends to know prices nobody saw.
Quiet minutes are no gaps, nor are those that official bars have filled; they have no bar and count
for none, as on the feed's own charts.

A study that recurs shows where its stretch begins, less with every bar it ages by, and after
``memory`` of them by less than 1e-12 of what it has been: where reading starts further back does
not matter. A session's study (VWAP) speaks of all that was traded since 00:00 UTC: from a gap on it
is null for the rest of the day. OBV counts from the first bar of its stretch, and anew after a bar
of unknown volume; only its differences mean something.
A new study is one function here and one line in ``STUDIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from itertools import groupby

import polars as pl

from . import schemas
from .quality import Flag
from .stretches import SEEN_SINCE, STRETCH
from .windows import DAY, MINUTE, floor

OPEN_TIME = pl.col("open_time")
CLOSE = pl.col("close")
HIGH = pl.col("high")
LOW = pl.col("low")
VOLUME = pl.col("volume")
FLAGS = pl.col("flags")
# A longer bar may hold the volume of some of its minutes only, and then says so.
VOLUME_IS_UNKNOWN = VOLUME.is_null() | (FLAGS & Flag.VOLUME_UNKNOWN.value > 0)
ROW = pl.int_range(1, pl.len() + 1)
SESSION = OPEN_TIME.dt.truncate("1d")
DAY_IS_WHOLE = pl.col(SEEN_SINCE) <= SESSION
COMPUTED = "computed"
LONGEST = 10_000  # bars; a typing error would otherwise read years
SHORT = 5_000  # bars up to which stretches are sooner computed together than one by one


class Start(Enum):
    """Where the bars begin that a value speaks of."""

    MEMORY = "memory"  # so many bars before it
    DAY = "day"  # at 00:00 UTC
    STRETCH = "stretch"  # after the last real gap, or where recording began


class Unit(StrEnum):
    """What the values of a study are in."""

    PRICE = "price"  # the symbol's quote currency
    PERCENT = "0 to 100"
    VOLUME = "volume"  # the symbol's base currency


WITHIN = {Start.MEMORY: pl.col(STRETCH), Start.DAY: SESSION, Start.STRETCH: pl.col(STRETCH)}
UNSETTLED = Flag.WARMING | Flag.SETTLING
MISSING = "flags_if_missing"
KNOWN = "flags_if_known"


@dataclass(frozen=True, slots=True)
class Study:
    """A named set of plots; ``warm_up`` is the number of bars before the last plot's first value.

    A plot may speak of those before it by name, and of ``steps``, which are computed first and not
    kept: what is written twice in an expression is computed twice. ``memory`` is the number of bars
    after which what came before no longer shows in the digits of a value: what has to be read
    before a window, and how long a value that starts elsewhere, as on the feed's chart, may differ.
    ``age`` is how many of them a stretch has had by each bar.
    """

    name: str
    parameters: Mapping[str, int | float]
    plots: Mapping[str, pl.Expr]
    warm_up: int
    memory: int
    start: Start = Start.MEMORY
    age: pl.Expr = ROW
    steps: Mapping[str, pl.Expr] = field(default_factory=dict)
    unit: Unit = Unit.PRICE
    suffix: str = ""  # of its columns, where one study is asked for with several parameters

    @property
    def label(self) -> str:
        """The parameters as text, in their order: ``fast=12,slow=26,signal=9``."""
        return ",".join(f"{name}={value}" for name, value in self.parameters.items())

    @property
    def columns(self) -> list[str]:
        """The names of its plots in wide frames."""
        return [f"{plot}{self.suffix}" for plot in self.plots]

    @property
    def captions(self) -> list[str]:
        """Its plots as a person reads them: ``macd``, ``macd signal``; ``rsi:7`` as asked for."""
        asked = f"{self.name}{self.suffix.replace('_', ':')}"
        return [asked if plot == self.name else f"{asked} {plot}" for plot in self.plots]

    def reach(self, day: datetime) -> datetime | None:
        """Return from when on minutes are read for values of *day*; None: from the first of all.

        A fixed reach keeps a day's values a function of data, whoever builds which part of it. It
        is a day more than twice the memory, for symbols that do not trade in every minute.
        """
        if self.start is Start.STRETCH:
            return None
        days = 1 if self.start is Start.DAY else -(-2 * self.memory * MINUTE // DAY) + 1
        return floor(day, DAY) - days * DAY


def sma(length: int = 20) -> Study:
    """Return the simple moving average of the close."""
    _check(length=length)
    plots = {"sma": CLOSE.rolling_mean(length)}
    return Study("sma", {"length": length}, plots, warm_up=length, memory=length)


def ema(length: int = 20) -> Study:
    """Return the exponential moving average of the close, seeded with its first simple average."""
    _check(length=length)
    plots = {"ema": _seeded_ema(CLOSE, length, skip=0)}
    return Study("ema", {"length": length}, plots, length, _fading(2 / (length + 1), length))


def rsi(length: int = 14) -> Study:
    """Return Wilder's relative strength index, 0 to 100; 100 where nothing was ever lost.

    It ages only while the close moves: where it stands still, gain and loss fade alike and their
    ratio stays what it was.
    """
    _check(length=length)
    change = pl.col("change")
    age = pl.when(CLOSE.diff() != 0).then(ROW).forward_fill().fill_null(0)
    steps = {
        "change": CLOSE.diff(),
        "rise": change.clip(lower_bound=0),
        "fall": (-change).clip(lower_bound=0),
        "gain": _wilder(pl.col("rise"), length, skip=1),
        "loss": _wilder(pl.col("fall"), length, skip=1),
    }
    gain, loss = pl.col("gain"), pl.col("loss")
    value = pl.when(loss == 0).then(100.0).otherwise(100.0 - 100.0 / (1.0 + gain / loss))
    memory = _fading(1 / length, length + 1)
    plots = {"rsi": value}
    parameters = {"length": length}
    return Study(
        "rsi", parameters, plots, length + 1, memory, age=age, steps=steps, unit=Unit.PERCENT
    )


def macd(fast: int = 12, slow: int = 26, signal: int = 9) -> Study:
    """Return MACD line, its signal and their difference; every average seeded with a simple one."""
    _check(fast=fast, slow=slow, signal=signal)
    if fast >= slow:
        raise ValueError(f"fast must be less than slow, was {fast} with {slow}")
    plots = {
        "macd": _seeded_ema(CLOSE, fast, skip=0) - _seeded_ema(CLOSE, slow, skip=0),
        "signal": _seeded_ema(pl.col("macd"), signal, skip=slow - 1),
        "histogram": pl.col("macd") - pl.col("signal"),
    }
    parameters = {"fast": fast, "slow": slow, "signal": signal}
    warm_up = slow + signal - 1
    memory = _fading(2 / (max(slow, signal) + 1), warm_up) + signal
    return Study("macd", parameters, plots, warm_up, memory)


def bollinger(length: int = 20, width: float = 2.0) -> Study:
    """Return the simple average and *width* population standard deviations around it."""
    _check(length=length)
    if not 0 < width < float("inf"):
        raise ValueError(f"width must be more than 0, was {width}")
    width = float(width)
    middle, reach = pl.col("middle"), pl.col("reach")
    steps = {"reach": width * CLOSE.rolling_std(length, ddof=0)}
    plots = {"middle": CLOSE.rolling_mean(length), "upper": middle + reach, "lower": middle - reach}
    parameters = {"length": length, "width": width}
    return Study("bollinger", parameters, plots, length, length, steps=steps)


def atr(length: int = 14) -> Study:
    """Return Wilder's average true range, in price units."""
    _check(length=length)
    before = CLOSE.shift(1)
    reach = pl.max_horizontal(HIGH - LOW, (HIGH - before).abs(), (LOW - before).abs())
    steps = {"true_range": pl.when(before.is_not_null()).then(reach)}
    plots = {"atr": _wilder(pl.col("true_range"), length, skip=1)}
    memory = _fading(1 / length, length + 1)
    return Study("atr", {"length": length}, plots, length + 1, memory, steps=steps)


def vwap() -> Study:
    """Return the volume-weighted average of the typical price since 00:00 UTC.

    Null from a bar of unknown volume, or one in which a gap began, to the end of its day; on a day
    whose beginning was not seen; and before anything was traded.
    """
    typical = (HIGH + LOW + CLOSE) / 3
    value = (typical * VOLUME).cum_sum() / VOLUME.cum_sum()
    known = DAY_IS_WHOLE & ~VOLUME_IS_UNKNOWN.cum_max() & value.is_finite()
    plots = {"vwap": pl.when(known).then(value)}
    return Study("vwap", {}, plots, warm_up=1, memory=1, start=Start.DAY)


def obv() -> Study:
    """Return on-balance volume, counted from the first bar of the stretch.

    Null at a bar of unknown volume, and counted from zero after it.
    """
    volume = pl.when(~VOLUME_IS_UNKNOWN).then(VOLUME).otherwise(0.0)
    signed = pl.when(CLOSE.shift(1).is_null()).then(volume).otherwise(CLOSE.diff().sign() * volume)
    total = pl.col("total")
    before = pl.when(VOLUME_IS_UNKNOWN).then(total).forward_fill().fill_null(0.0)
    steps = {"total": signed.cum_sum()}
    plots = {"obv": pl.when(~VOLUME_IS_UNKNOWN).then(total - before)}
    return Study(
        "obv", {}, plots, warm_up=1, memory=1, start=Start.STRETCH, steps=steps, unit=Unit.VOLUME
    )


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


def remembered(before: pl.DataFrame, studies: Iterable[Study]) -> bool:
    """Tell whether bars (of one symbol, with stretches) hold all that shows in values after them.

    They do if their last stretch began among them, or is as old as the studies remember.
    """
    last = before.filter(pl.col(STRETCH) == pl.col(STRETCH).last())
    if last.height < before.height:
        return True
    return all(
        not last.is_empty() and last.select(study.age.last()).item() >= study.memory
        for study in studies
    )


def widen(bars: pl.DataFrame, studies: Iterable[Study]) -> pl.DataFrame:
    """Return *bars* (with stretches) and one more column a plot, named after the plot.

    A bar is flagged ``WARMING`` or ``SETTLING`` where a value beside it is; OBV, which never
    settles, does not count.
    """
    flags, columns = bars["flags"], []
    for study in studies:
        told = _told(bars, study)
        columns.append(told.select(study.columns))
        if study.start is not Start.STRETCH:
            of_plots = told.select(_flags(plot) & UNSETTLED.value for plot in study.columns)
            flags = flags | of_plots.fold(lambda one, other: one | other)
    return pl.concat([bars.with_columns(flags=flags), *columns], how="horizontal")


def compute(bars: pl.DataFrame, studies: Iterable[Study]) -> pl.DataFrame:
    """Return every value of *studies* over *bars* (with stretches), in the indicators' schema.

    One row a symbol, bar, study and plot. The value is null, and flagged ``WARMING``, where the
    study is not warm; it is flagged ``SETTLING`` where it still shows at which bar it began, as
    OBV always does.
    """
    long = [
        bars.select(
            *("exchange", "symbol", "open_time"),
            pl.lit(study.name).alias("name"),
            pl.lit(study.label).alias("parameters"),
            pl.lit(plot).alias("plot"),
            told[plot].alias("value"),
            pl.lit(COMPUTED).alias("source"),
            told.select(_flags(plot))[plot].alias("flags"),
        ).cast(schemas.INDICATORS)
        for study in studies
        for told in [_told(bars, study)]
        for plot in study.columns
    ]
    if not long:
        return pl.DataFrame(schema=schemas.INDICATORS)
    return pl.concat(long).sort("symbol", "open_time", "name", "parameters", "plot")


def _told(bars: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return the columns of *study*, each computed within its stretch or its day, and two of flags.

    ``MISSING`` holds those of a bar whose value is null, ``KNOWN`` those of one that has a value.

    These stand one after the other: a long one is cut out, which costs half of grouping by it, and
    short ones are grouped, because each cut costs a millisecond. The values are the same.
    """
    frame = bars.select(
        *("symbol", "open_time", "high", "low", "close", "volume", "flags", SEEN_SINCE),
        WITHIN[study.start].alias("within"),
    )
    lengths = frame.select(pl.struct("symbol", "within").rle().struct.field("len")).to_series()
    told = ((MISSING, _when_missing(study)), (KNOWN, _when_known(study)))
    parts, offset = [], 0
    for are_short, group in groupby(lengths, lambda length: length <= SHORT):
        for rows in [sum(group)] if are_short else group:
            part = frame.slice(offset, rows)
            for name, plot in (*study.steps.items(), *study.plots.items(), *told):
                value = plot.over("symbol", "within") if are_short else plot
                part = part.with_columns(value.alias(name))
            parts.append(part.select(*study.plots, MISSING, KNOWN))
            offset += rows
    if not parts:
        empty = dict.fromkeys(study.columns, pl.Float64)
        return pl.DataFrame(schema={**empty, MISSING: pl.Int32, KNOWN: pl.Int32})
    return pl.concat(parts, rechunk=True).rename(dict(zip(study.plots, study.columns, strict=True)))


def _when_missing(study: Study) -> pl.Expr:
    """Return the flags of a bar where a plot of *study* is null."""
    because_of_volume = {
        Start.MEMORY: pl.lit(value=False),
        Start.DAY: DAY_IS_WHOLE & VOLUME_IS_UNKNOWN.cum_max(),
        Start.STRETCH: VOLUME_IS_UNKNOWN,
    }[study.start]
    cause = pl.when(because_of_volume).then(Flag.VOLUME_UNKNOWN.value).otherwise(Flag.WARMING.value)
    return (FLAGS | cause).cast(pl.Int32)


def _when_known(study: Study) -> pl.Expr:
    """Return the flags of a bar where *study* has values."""
    shows_its_start = {
        Start.MEMORY: study.age < study.memory,
        Start.DAY: pl.lit(value=False),
        Start.STRETCH: pl.lit(value=True),
    }[study.start]
    return (FLAGS | pl.when(shows_its_start).then(Flag.SETTLING.value).otherwise(0)).cast(pl.Int32)


def _flags(plot: str) -> pl.Expr:
    return pl.when(pl.col(plot).is_null()).then(MISSING).otherwise(KNOWN).alias(plot)


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


def _check(**lengths: int) -> None:
    for name, length in lengths.items():
        if not 1 <= length <= LONGEST or length != int(length):
            problem = f"{name} must be a whole number of bars, 1 to {LONGEST}, was {length}"
            raise ValueError(problem)


def _fading(alpha: float, warm_up: int) -> int:
    """Return the bars after which a recursion with *alpha* has forgotten its seed to 1e-15."""
    steps = 0
    weight = 1.0
    while weight > 1e-15:
        weight *= 1 - alpha
        steps += 1
    return warm_up + steps
