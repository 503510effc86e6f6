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
    spread = floats(rows["ask"]) - floats(rows["bid"])
    received, sequence = microseconds(rows["received_at"]), rows["sequence"].to_numpy()
    known = ~np.isnan(spread)
    if not known.all():
        spread, received, sequence = spread[known], received[known], sequence[known]
        symbols = symbols[known]
    if not spread.size:
        return np.full(seconds.size, np.nan)
    order = _receive_order(symbols, received, sequence)
    spread, received = spread[order], received[order]  # rows stay within their symbol

    # What each state adds to the second it was received in: it holds until the next one's.
    second = received // SECOND_US
    begun = np.flatnonzero(changes(symbols, second))
    last = np.append(begun[1:], spread.size) - 1
    symbol, second = symbols[begun], second[begun]
    begin = second * SECOND_US
    held = np.diff(received, append=0)
    held[last] = begin + SECOND_US - received[last]
    change_total = np.add.reduceat(spread * held, begun)
    # Before the first change of a second stands what the symbol had before, if anything.
    lead = received[begun] - begin
    start = np.roll(spread[last], 1) * lead
    length = np.full(begun.size, SECOND_US)
    first = np.flatnonzero(changes(symbol))
    start[first], length[first] = 0.0, SECOND_US - lead[first]
    moving = (start + change_total) / length

    # One rising key for (symbol, second) finds each second's changes, or the state it inherits.
    origin = min(second.min(), seconds.min())
    span = max(second.max(), seconds.max()) - origin + 1
    asked, there = of * span + (seconds - origin), symbol * span + (second - origin)
    group = np.searchsorted(there, asked, side="right") - 1
    found = np.maximum(group, 0)
    result: Floats = moving[found]
    still = np.flatnonzero(there[found] != asked)
    result[still] = spread[last[found[still]]]
    result[(group < 0) | (symbol[found] != of)] = np.nan
    return result


def _receive_order(symbols: Ints, received: Ints, sequence: Ints) -> Ints:
    """Return the positions of rows by symbol and order of receipt, which are nearly in it."""
    origin = received.min()
    key = symbols * (received.max() - origin + 1) + (received - origin)
    order = np.argsort(key, kind="stable")  # which takes ordered stretches as they are
    key = key[order]
    together = np.flatnonzero(key[1:] == key[:-1])
    if (sequence[order[together + 1]] < sequence[order[together]]).any():
        return np.lexsort((sequence, received, symbols))
    return order
