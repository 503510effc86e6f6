"""Decimal numbers that came as floats: differences and sums to the last digit.

Volumes are decimals of at most 15 digits, which a float holds for certain. In units of their last
decimal (*lots*) they are whole numbers: those add and subtract exactly, and divided again they are
the float nearest to the true result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import Floats, Ints

_DIGITS = 15
_JUST_BELOW = 1 - 1e-14  # the logarithm of 99999999999999.9 rounds up to 14
_POWERS = np.array([float(10**n) for n in range(_DIGITS + 1)])


def decimals_of(largest: Floats) -> Ints:
    """Return how many decimals numbers up to *largest* may have within 15 digits."""
    exponent = np.floor(np.log10(np.maximum(largest, 1e-9) * _JUST_BELOW)).astype(np.int64)
    return np.clip(_DIGITS - 1 - exponent, 0, _DIGITS)


def to_lots(values: Floats, decimals: Ints) -> Ints:
    """Return *values* in units of their last decimal."""
    lots: Ints = np.rint(values * _POWERS[decimals]).astype(np.int64)
    return lots


def from_lots(lots: Ints, decimals: Ints) -> Floats:
    """Return lots as base currency: the float nearest to the decimal number."""
    volumes: Floats = lots / _POWERS[decimals]
    return volumes


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
