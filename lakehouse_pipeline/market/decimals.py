"""Decimal numbers that came as floats: differences and sums to the last digit.

Volumes are decimals of at most 15 digits, which a float holds for certain. In units of their last
decimal (*lots*) they are whole numbers: those add and subtract exactly, and divided again they are
the float nearest to the true result. How many decimals a number may have follows from its own size
alone: what comes later, and is larger, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import Bools, Floats, Ints

_DIGITS = 15
_JUST_BELOW = 1 - 1e-14  # the logarithm of 99999999999999.9 rounds up to 14
_POWERS = np.array([float(10**n) for n in range(_DIGITS + 1)])
_EXACT = 2.0**51  # up to here a float and its product are both less than half a lot off
_SPARE = 3  # powers of ten that 15 digits leave in a 64-bit number


def decimals_of(values: Floats) -> Ints:
    """Return how many decimals each of *values* may have within 15 digits."""
    return _DIGITS - np.searchsorted(_POWERS[:_DIGITS], values, side="right")


def is_exact(values: Floats, decimals: Ints) -> Bools:
    """Return where *values* keep so many decimals, be they a little more than 15 digits."""
    exact: Bools = values * _POWERS[decimals] < _EXACT
    return exact


def to_lots(values: Floats, decimals: Ints) -> Ints:
    """Return *values* in units of their last decimal."""
    lots: Ints = np.rint(values * _POWERS[decimals]).astype(np.int64)
    return lots


def from_lots(lots: Ints, decimals: Ints) -> Floats:
    """Return lots as base currency: the float nearest to the decimal number."""
    volumes: Floats = lots / _POWERS[decimals]
    return volumes


def exact_sums(lots: Ints, decimals: Ints, starts: Ints, ends: Ints) -> Floats:
    """Return the sum of each run of *lots*, whose units may differ, as the float nearest to it.

    Runs are given by their first and last positions. A unit changes where a counter passes a power
    of ten, so few runs have more than one.
    """
    total = np.cumsum(lots)  # whole numbers, so a difference of running totals is exact
    sums = from_lots(total[ends] - total[starts] + lots[starts], decimals[starts])
    changed = np.flatnonzero(decimals[1:] != decimals[:-1]) + 1
    runs = np.unique(np.searchsorted(starts, changed, side="right") - 1)
    for run in runs[starts[runs] < ends[runs]].tolist():
        inside = slice(starts[run], ends[run] + 1)
        units = decimals[inside]
        finest = min(units.max(), units.min() + _SPARE)
        finer = np.minimum(units, finest)
        whole = lots[inside] // 10 ** (units - finer) * 10 ** (finest - finer)
        sums[run] = from_lots(whole.sum(), finest)
    return sums


def sums_of_decimals(values: Floats, starts: Ints) -> Floats:
    """Return the decimal sum of each run of *values*, as ``exact_sum``; NaN where all are."""
    known = ~np.isnan(values)
    shown = np.where(known, values, 0.0)
    with np.errstate(divide="ignore"):  # of nothing at all
        exponent = np.floor(np.log10(np.add.reduceat(shown, starts) * _JUST_BELOW))
    power = _POWERS[(_DIGITS - 1 - np.clip(exponent, -1, _DIGITS - 1)).astype(np.int64)]
    whole = np.rint(shown * np.repeat(power, np.diff(starts, append=values.size)))
    total: Floats = np.add.reduceat(whole, starts) / power
    total[~np.logical_or.reduceat(known, starts)] = np.nan
    return total


def exact_total(volumes: Sequence[float]) -> float:
    """Return the decimal sum of decimal floats, as the nearest float."""
    return float(pl.DataFrame({"volume": volumes}).select(exact_sum("volume")).item())


def exact_sum(column: str) -> pl.Expr:
    """Sum decimal floats as decimals: the float nearest to the true sum; null if all are null."""
    values = pl.col(column)
    power = lots_per_unit(values.sum())
    total = (values * power).round().sum() / power
    return pl.when(values.count() > 0).then(total)


def lots_per_unit(largest: pl.Expr) -> pl.Expr:
    """Return the power of ten that makes decimals up to *largest* whole, within 15 digits."""
    exponent = (largest * _JUST_BELOW).log10().floor().clip(-1, _DIGITS - 1)
    return pl.lit(10.0).pow(_DIGITS - 1 - exponent)
