"""Shorter bars to longer ones, equal to what the quotes themselves would have made.

An interval is a run of rows: its edges are found by comparing neighbors, its values reduced with
numpy. ``rolled`` then says what of the whole interval the bars there are leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from .arrays import (
    Bools,
    Floats,
    Ints,
    changes,
    codes,
    floats,
    in_order,
    microseconds,
    text_changes,
)
from .bars import Source, State
from .decimals import sums_of_decimals
from .schemas import BARS
from .volume import Basis

FIRST = ["exchange", "symbol", "open_time", "open", "prev_close", "counter_start"]
LAST = ["close", "counter_end", "bid", "ask"]
COUNTS = [name for name in BARS if name.endswith("_updates")] + ["observed_seconds"]


def roll_up(bars: pl.DataFrame, step: timedelta) -> pl.DataFrame:
    """Return *bars* of shorter steps as bars of *step*; the same as building them from quotes.

    Pass the bars of whole intervals. ``covered_seconds`` is the sum over the bars there are, and
    ``state`` theirs; ``with_coverage`` and ``rolled`` state both for the whole interval.
    """
    if bars.is_empty():
        return BARS.to_frame()
    rows = in_order(bars, "symbol", "open_time")
    rows = rows.with_columns(pl.col("open_time").dt.truncate(step))
    begins = changes(codes(rows["symbol"]), microseconds(rows["open_time"]))
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], rows.height) - 1
    rolled = {
        **{name: rows[name][starts] for name in FIRST},
        **{name: rows[name][ends] for name in LAST},
        "high": np.fmax.reduceat(floats(rows["high"]), starts),
        "low": np.fmin.reduceat(floats(rows["low"]), starts),
        "volume": sums_of_decimals(floats(rows["volume"]), starts),
        "volume_basis": _joint_basis(rows["volume_basis"], starts),
        **{name: np.add.reduceat(rows[name].fill_null(0).to_numpy(), starts) for name in COUNTS},
        "covered_seconds": np.add.reduceat(floats(rows["covered_seconds"]), starts),
        "state": _joint_state(rows["state"], starts),
        "source": _joint_source(rows["source"], starts),
        "flags": np.bitwise_or.reduceat(rows["flags"].to_numpy(), starts),
        "spread": _mean_spread(rows, begins),
    }
    return (
        pl.DataFrame(rolled, nan_to_null=True).select(BARS.names()).cast(dict(BARS))  # type: ignore[arg-type]  # a schema is a mapping of types
    )


def _mean_spread(rows: pl.DataFrame, begins: Bools) -> Floats:
    """Return the mean spread of each interval over its observed seconds, added up in order."""
    interval, spread = np.cumsum(begins) - 1, floats(rows["spread"])
    weight = np.where(np.isnan(spread), 0, rows["observed_seconds"].to_numpy())
    total = np.bincount(interval, np.where(weight > 0, spread * weight, 0.0))
    seconds = np.bincount(interval, weight)
    mean: Floats = np.full(total.size, np.nan)
    return np.divide(total, seconds, out=mean, where=seconds > 0)


def _joint_state(states: pl.Series, starts: Ints) -> pl.Series:
    """Return the state of each interval: the first that is not final."""
    unsettled = np.where(_bits(states, [State.FINAL]), states.len(), np.arange(states.len()))
    found = np.minimum.reduceat(unsettled, starts)
    return states[np.where(found < states.len(), found, starts)]


def _joint_source(sources: pl.Series, starts: Ints) -> pl.Series:
    """Return the source of each interval: that of all its bars, or MIXED."""
    differs = np.zeros(sources.len(), dtype=np.bool_)
    differs[text_changes(sources)] = True
    differs[starts] = False
    mixed = pl.Series(np.logical_or.reduceat(differs, starts))
    return sources[starts].set(mixed, Source.MIXED.value)


def _joint_basis(bases: pl.Series, starts: Ints) -> pl.Series:
    """Return the basis of each sum: that of what is known of it, MIXED where there are several.

    A counter's return to zero is counted like any other delta, and told.
    """
    kinds = [Basis.COUNTER_DELTA, Basis.COUNTER_RESET, Basis.ROLLED_COMP]
    kinds += [Basis.OFFICIAL, Basis.MIXED]
    among = np.bitwise_or.reduceat(_bits(bases, kinds), starts)
    delta, reset, rolled, official, mixed = (among & 1 << bit > 0 for bit in range(len(kinds)))
    counted = delta | reset
    several = mixed | (counted & rolled) | ((counted | rolled) & official)
    joint = pl.Series(np.full(starts.size, Basis.UNKNOWN.value), dtype=pl.String)
    for is_so, so in zip((delta, reset, rolled, official, several), kinds, strict=True):
        joint = joint.set(pl.Series(is_so), so.value)
    return joint


def _bits(texts: pl.Series, ones: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return a bit for each of *texts* that tells which of *ones* it is; most are as the last."""
    heads = text_changes(texts)
    bits = texts[heads].replace_strict(
        list(ones), [1 << bit for bit in range(len(ones))], default=0, return_dtype=pl.UInt8
    )
    return np.repeat(bits.to_numpy(), np.diff(heads, append=texts.len()))
