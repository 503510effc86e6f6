"""The time-weighted bid-ask spread of given seconds.

Bid and ask carry no time of the exchange: a state holds from when it was received until the next.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import SECOND_US, Floats, Ints, changes, floats, microseconds


def spreads(rows: pl.DataFrame, symbols: Ints, of: Ints, seconds: Ints) -> Floats:
    """Return the mean of ask - bid over each second, weighted by time; NaN while unknown.

    *symbols* numbers the symbol of each row; *of* and *seconds* are the symbol and the epoch
    second asked for, both rising.
    """
    spread = floats(rows["ask"] - rows["bid"])
    known = np.flatnonzero(~np.isnan(spread))
    if not known.size:
        return np.full(seconds.size, np.nan)
    received = microseconds(rows["received_at"])[known]
    order = _receive_order(symbols[known], received, rows["sequence"].to_numpy()[known])
    known, received = known[order], received[order]
    spread, symbol = spread[known], symbols[known]

    # What each state adds to the second it was received in: it holds until the next one's.
    second = received // SECOND_US
    first = changes(symbol, second)
    begun = np.flatnonzero(first)
    until = np.append(received[1:], 0)
    last = np.append(begun[1:], known.size) - 1
    until[last] = (second[last] + 1) * SECOND_US
    change_total = np.add.reduceat(spread * (until - received), begun)
    # Before the first change of a second stands what the symbol had before, if anything.
    lead = received[begun] - second[begun] * SECOND_US
    before = np.where(changes(symbol)[begun], np.nan, np.roll(spread, 1)[begun])
    start = np.where(np.isnan(before), 0.0, before * lead)
    length = np.where(np.isnan(before), SECOND_US - lead, SECOND_US)
    moving = (start + change_total) / length

    # One rising key for (symbol, second) finds each second's changes, or the state it inherits.
    origin = min(second.min(), seconds.min())
    span = max(second.max(), seconds.max()) - origin + 1
    asked = of * span + (seconds - origin)
    group = np.searchsorted((symbol * span + (second - origin))[begun], asked, side="right") - 1
    found = np.maximum(group, 0)
    inherited = (group >= 0) & (symbol[begun][found] == of)
    changing = inherited & (second[begun][found] == seconds)
    return np.where(changing, moving[found], np.where(inherited, spread[last][found], np.nan))


def _receive_order(symbols: Ints, received: Ints, sequence: Ints) -> Ints:
    """Return the positions of rows by symbol and order of receipt, which are nearly in it."""
    origin = received.min()
    key = symbols * (received.max() - origin + 1) + (received - origin)
    order = np.argsort(key, kind="stable")  # which takes ordered stretches as they are
    together = np.diff(key[order]) == 0
    if (together & (np.diff(sequence[order]) < 0)).any():
        return np.lexsort((sequence, key))
    return order
