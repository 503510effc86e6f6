"""Which kind of counter a symbol has, and what a rolling one is good for.

A session's counter starts from zero at 00:00 UTC and otherwise rises: ``volume.book`` takes its
differences. The volume of the last 24 hours falls whenever old trades leave, so its differences
under-count; with the official minutes of the day before, what left is known and a minute's volume
is exact. Never per second, never from our own estimates: errors would come back every day.

The kind is told from how the counter falls. Of a counter that showed too little to tell, and never
fell, nothing speaks against the session's that every capture shows: it is booked like one. One
that does not fit any kind is followed and not summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import DAY_US, SECOND_US, Bools, Ints, bools, changes, codes
from lakehouse_pipeline.market.arrays import microseconds as us
from lakehouse_pipeline.market.bars import portions, with_coverage
from lakehouse_pipeline.market.decimals import lots_per_unit
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import RECEIVED, Kind, canonical, numbered, showing_counter
from lakehouse_pipeline.market.schemas import BARS
from lakehouse_pipeline.market.volume import LARGEST, Basis, CounterKind
from lakehouse_pipeline.market.windows import DAY, MINUTE

ENOUGH = 50  # steps before a counter that does not fall is a session's
_FALLS = 3  # falls before it is a rolling one: a wrong value or two is a fault of the feed
_MINUTE_US = 60 * SECOND_US
_BOUNDARY_US = 3 * SECOND_US  # a window that moves by minutes moves within the first seconds of one

# What ``detect_kinds`` looks at.
COUNTER_COLUMNS = [
    *("exchange", "symbol", "event_time", "received_at", "kind", "changed", "last_time"),
    *("cumulative_volume", "session_id", "writer_id", "sequence"),
]
VERDICTS = pl.Schema(
    {
        "exchange": pl.String(),
        "symbol": pl.String(),
        "counter_kind": pl.String(),
        "counter_evidence": pl.String(),
        "volume_basis": pl.String(),  # of its bars: counter_delta, rolled_comp or unknown
    }
)


def detect_kinds(quotes: pl.DataFrame, *, until: datetime | None = None) -> pl.DataFrame:
    """Return one row a symbol that showed its counter, in VERDICTS schema.

    *quotes*: best a day around a UTC midnight; a few busy minutes tell a rolling window. Those
    received from *until* on are left out. Kind ``unknown`` means that too little was seen, or that
    it fits none.
    """
    rows = canonical(quotes.select(COUNTER_COLUMNS))
    # In portions, so that what is left of the rows is never there as a whole once more.
    tally = pl.concat(
        [_tally(_in_time(_showing(part, until))) for part in portions(rows)] or [_tally(rows)]
    )
    steps, falls, resets = pl.col("steps"), pl.col("falls"), pl.col("resets")
    at_boundary, midnights = pl.col("at_boundary"), pl.col("midnights")
    falls_often = (falls >= _FALLS) & (falls * 20 > steps)
    moves_by_minutes = (
        (at_boundary * 4 > pl.col("minutes"))
        & (at_boundary >= _FALLS)
        & (at_boundary * 10 >= falls * 9)
    )
    begins_anew = (midnights == 0) | (resets > 0)
    is_session = (steps >= ENOUGH) & (falls * 100 <= steps) & begins_anew
    kind = (
        pl.when(moves_by_minutes)
        .then(pl.lit(CounterKind.ROLLING_MINUTE.value))
        .when(falls_often)
        .then(pl.lit(CounterKind.ROLLING.value))
        .when(is_session)
        .then(pl.lit(CounterKind.SESSION.value))
        .otherwise(pl.lit(CounterKind.UNKNOWN.value))
    )
    evidence = pl.format(
        "{} of {} steps fell, {} of them on one of {} minutes; {} of {} midnights reset it",
        *("falls", "steps", "at_boundary", "minutes", "resets", "midnights"),
    )
    fits_none = (pl.col("counter_kind") == CounterKind.UNKNOWN) & ((falls >= _FALLS) | ~begins_anew)
    basis = (
        pl.when(pl.col("counter_kind").is_in([CounterKind.ROLLING, CounterKind.ROLLING_MINUTE]))
        .then(pl.lit(Basis.ROLLED_COMP.value))
        .when(fits_none)
        .then(pl.lit(Basis.UNKNOWN.value))
        .otherwise(pl.lit(Basis.COUNTER_DELTA.value))
    )
    return (
        tally.with_columns(counter_kind=kind, counter_evidence=evidence)
        .with_columns(volume_basis=basis)
        .select(VERDICTS.names())
        .cast(dict(VERDICTS))  # type: ignore[arg-type]  # a schema is a mapping of types
    )


def _showing(rows: pl.DataFrame, until: datetime | None) -> pl.DataFrame:
    """Return the *rows* that show a counter's value that can be, as far as they are needed."""
    value = rows["cumulative_volume"]
    shown = pl.Series(showing_counter(rows["changed"], numbered(rows["kind"])))
    shown &= value.is_between(0, LARGEST)
    if until is not None:
        shown &= rows["received_at"] < until
    return rows.drop("changed", "event_time").filter(shown)


def _in_time(rows: pl.DataFrame) -> pl.DataFrame:
    """Return *rows* in order of receipt, without what was delivered late.

    A trade that comes after a later one shows the counter of its own time, which is no fall.
    """
    same = ~changes(codes(rows["symbol"]))[1:]
    if not rows["last_time"].has_nulls():
        traded, received = us(rows["last_time"]), us(rows["received_at"])
        if (np.diff(traded)[same] >= 0).all() and (np.diff(received)[same] > 0).all():
            return rows
    newest = pl.col("last_time").cum_max().over("symbol", "session_id")
    in_time = pl.col("last_time").is_null() | (pl.col("last_time") >= newest)
    return rows.sort(RECEIVED).filter(in_time)


def _tally(rows: pl.DataFrame) -> pl.DataFrame:
    """Return by symbol how often its counter moved and fell; *rows* in order of receipt.

    A step is from one observation of a session to its next; nothing is compared across two.
    """
    symbol, value = codes(rows["symbol"]), rows["cumulative_volume"].to_numpy()
    received = us(rows["received_at"])
    day = us(rows["last_time"].fill_null(rows["received_at"])) // DAY_US
    minute = received // _MINUTE_US
    moved = _follows(rows, symbol) & (np.diff(value) != 0)
    fell = moved & (np.diff(value) < 0)
    new_day, new_minute = np.diff(day) != 0, np.diff(minute) != 0
    at_boundary = fell & new_minute & (received[1:] % _MINUTE_US < _BOUNDARY_US)
    of = symbol[1:]
    first = np.flatnonzero(np.diff(symbol, prepend=-1))
    names = rows.select("exchange", "symbol")[first]

    def count(which: Bools) -> Ints:
        return np.bincount(of[which], minlength=names.height)

    return names.with_columns(
        steps=pl.Series(count(moved)),
        falls=pl.Series(count(fell & ~new_day)),
        at_boundary=pl.Series(count(at_boundary & ~new_day)),
        minutes=pl.Series(count(moved & new_minute)),
        midnights=pl.Series(count(moved & new_day)),
        resets=pl.Series(count(fell & new_day)),
    )


def _follows(rows: pl.DataFrame, symbol: Ints) -> Bools:
    """Return for each row but the first whether it is an update after the one before it."""
    session = rows["session_id"]
    same = bools((session == session.shift()).fill_null(value=False))[1:]
    follows: Bools = same & (np.diff(symbol) == 0) & bools(rows["kind"] != Kind.RESTORE)[1:]
    return follows


def as_kinds(verdicts: pl.DataFrame) -> dict[str, CounterKind]:
    """Return the kind of each symbol whose counter is not to be booked as a session's."""
    gauges = verdicts.filter(pl.col("volume_basis") != Basis.COUNTER_DELTA)
    gauges = gauges.select("symbol", "counter_kind").sort("symbol")
    return {symbol: CounterKind(kind) for symbol, kind in gauges.iter_rows()}


def followed(bars: pl.DataFrame) -> list[str]:
    """Return the symbols with bars that know their counter and yet not their volume."""
    unsummed = pl.col("volume").is_null() & pl.col("counter_start").is_not_null()
    return bars.filter(unsummed)["symbol"].unique().sort().to_list()


def compensate(
    minutes: pl.DataFrame,
    history: pl.DataFrame,
    coverage: pl.DataFrame,
    kinds: Mapping[str, CounterKind],
) -> pl.DataFrame:
    """Return one-minute bars with the volume of rolling counters, where it can be known.

    The counter's difference plus the official volume of the minute that left the window meanwhile
    (*history*, in HISTORY schema, from 24 h and a minute before). A minute not wholly seen, or
    whose minute before has no bar, keeps a null volume: its difference holds more than itself.

    The difference is taken between the last updates of two minutes, and what leaves goes on after
    an update. So a minute is exact where both came as their minute ended; else it is off by what
    left in between, which the next minute makes good: over minutes in a row the errors cancel but
    for the two ends, each at most the official volume of the minute that was leaving there.
    """
    lag = {CounterKind.ROLLING: DAY, CounterKind.ROLLING_MINUTE: DAY + MINUTE}
    lags = pl.DataFrame(
        {
            "symbol": [symbol for symbol, kind in kinds.items() if kind in lag],
            "lag": [lag[kind] for kind in kinds.values() if kind in lag],
        },
        schema={"symbol": pl.String, "lag": pl.Duration("us")},
    )
    left = history.select("symbol", leaving="open_time", outflow="volume")
    follows = pl.col("open_time").diff() == MINUTE
    start, end = pl.col("counter_start"), pl.col("counter_end")
    lots = lots_per_unit(pl.max_horizontal(start, end))
    volume = (
        (end * lots).round() - (start * lots).round() + (pl.col("outflow") * lots).round()
    ) / lots
    whole = (pl.col("flags") & Flag.PARTIAL.value) == 0
    usable = pl.col("lag").is_not_null() & whole & pl.col("follows") & (volume >= 0)
    lacking = Flag.VOLUME_UNKNOWN.value
    return (
        with_coverage(minutes.sort("symbol", "open_time"), coverage, MINUTE)
        .join(lags, on="symbol", how="left", maintain_order="left")
        .with_columns(follows=follows.over("symbol"), leaving=pl.col("open_time") - pl.col("lag"))
        .join(left, on=["symbol", "leaving"], how="left", maintain_order="left")
        .with_columns(
            pl.when(usable).then(volume).otherwise("volume").alias("volume"),
            pl.when(usable)
            .then(pl.lit(Basis.ROLLED_COMP.value))
            .otherwise("volume_basis")
            .alias("volume_basis"),
            pl.when(usable)
            .then(pl.col("flags") & ~lacking)
            .otherwise("flags")
            .cast(BARS["flags"])
            .alias("flags"),
        )
        .select(minutes.columns)
    )
