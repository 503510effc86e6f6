"""Columns of ordered rows as numpy arrays, and the edges between runs of equal rows.

What the kernels share. A function that knows what a column means belongs to its own module.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

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


def microsecond(at: datetime) -> int:
    """Return an instant as epoch microseconds."""
    return round(at.timestamp() * SECOND_US)


def floats(values: pl.Series) -> Floats:
    """Return a column of floats with NaN for null."""
    return values.fill_null(float("nan")).to_numpy()


def bools(values: pl.Series) -> Bools:
    """Return a column of booleans with false for null."""
    return values.fill_null(value=False).to_numpy()


def codes(names: pl.Series) -> Ints:
    """Return sorted names as rising numbers from zero."""
    starts = text_changes(names)
    return np.repeat(np.arange(starts.size), np.diff(starts, append=names.len()))


def text_changes(texts: pl.Series) -> Ints:
    """Return the positions at which a text differs from the one before; the first does."""
    if texts.len() < 2 or texts.has_nulls():
        differs = texts.ne_missing(texts.shift()).to_numpy().copy()
        differs[:1] = True
        return np.flatnonzero(differs)
    # Equal views are equal texts; the others, as from another page of a file, are read.
    halves = _views(texts).reshape(-1).view(np.int64)
    halves_differ = halves[2:] != halves[:-2]  # each beside its own of the text before
    candidates = np.flatnonzero(halves_differ.view(np.uint16)) + 1
    differ = (texts.gather(candidates) != texts.gather(candidates - 1)).to_numpy()
    return np.append(0, candidates[differ])


def in_order(rows: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Return *rows* sorted by the columns *names*, equal ones as they stood.

    Sealed files and what is built of them are sorted already. That is looked up, not assumed, and
    costs a fraction of the sort, and of the copy, that it saves.
    """
    return rows if _are_in_order(rows, names) else rows.sort(names, maintain_order=True)


def _are_in_order(rows: pl.DataFrame, names: Sequence[str]) -> bool:
    tied = np.ones(max(rows.height - 1, 0), dtype=np.bool_)
    for name in names:
        values = rows[name]
        if values.has_nulls():
            return False
        if values.dtype == pl.String:
            heads = text_changes(values)[1:]
            earlier, later = values.gather(heads - 1), values.gather(heads)
            falls = heads[(earlier > later).to_numpy()] - 1
            differs = np.zeros_like(tied)
            differs[heads - 1] = True
        else:
            numbers = values.to_physical().to_numpy()
            falls = np.flatnonzero(numbers[1:] < numbers[:-1])
            differs = numbers[1:] != numbers[:-1]
        if tied[falls].any():
            return False
        tied &= ~differs
    return True


def beginnings(texts: pl.Series) -> npt.NDArray[np.uint32]:
    """Return the first four bytes of each text without null, as a number of little endian."""
    return np.ascontiguousarray(_views(texts)[:, 1])


def _views(texts: pl.Series) -> npt.NDArray[np.uint32]:
    """Return the views of *texts*, a row of four numbers each, as Arrow lays them out.

    Length and the first four bytes; then eight bytes more, or where a longer text is stored.
    """
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    views = np.frombuffer(array.buffers()[1], dtype=np.uint32).reshape(-1, 4)
    return views[array.offset : array.offset + len(array)]


def changes(*keys: Ints) -> Bools:
    """Return where any of *keys* differs from the row before; true for the first."""
    changed = np.ones(keys[0].size, dtype=np.bool_)
    if changed.size:
        changed[1:] = keys[0][1:] != keys[0][:-1]
        for key in keys[1:]:
            changed[1:] |= key[1:] != key[:-1]
    return changed
