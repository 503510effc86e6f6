"""Columns of ordered rows as numpy arrays, and the edges between runs of equal rows.

What the kernels share. A function that knows what a column means belongs to its own module.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


def microseconds(times: pl.Series) -> Ints:
    """Return a column of times without nulls as epoch microseconds."""
    return times.to_physical().to_numpy()


def floats(values: pl.Series) -> Floats:
    """Return a column of floats with NaN for null."""
    return values.fill_null(float("nan")).to_numpy()


def bools(values: pl.Series) -> Bools:
    """Return a column of booleans with false for null."""
    return values.fill_null(value=False).to_numpy()


def codes(names: pl.Series) -> Ints:
    """Return sorted names as rising numbers from zero."""
    lengths = names.rle().struct.field("len").to_numpy()
    return np.repeat(np.arange(lengths.size), lengths)


def changes(*keys: Ints) -> Bools:
    """Return where any of *keys* differs from the row before; true for the first."""
    changed = np.ones(keys[0].size, dtype=np.bool_)
    if changed.size:
        changed[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            changed[1:] |= key[1:] != key[:-1]
    return changed
