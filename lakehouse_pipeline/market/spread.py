"""The time-weighted bid-ask spread of given seconds.

Bid and ask carry no time of the exchange: a state holds from when it was received until the next.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import SECOND_US, Floats, Ints, floats, microseconds


def spreads(rows: pl.DataFrame, symbols: Ints, of: Ints, seconds: Ints) -> Floats:
    """Return the mean of ask - bid over each second, weighted by time; NaN while unknown.

    *symbols* numbers the symbol of each row; *of* and *seconds* are the symbol and the epoch
    second asked for, both rising.
    """
    spread = floats(rows["ask"] - rows["bid"])
    known = np.flatnonzero(~np.isnan(spread))
    result = np.full(seconds.size, np.nan)
    if not known.size:
        return result
    received = microseconds(rows["received_at"])[known]
    order = _receive_order(symbols[known], received, rows["sequence"].to_numpy()[known])
    known, received = known[order], received[order]
    spread, symbol = spread[known], symbols[known]

    # One rising key for (symbol, instant); the margin keeps a second from reaching a neighbor.
    begin = seconds * SECOND_US
    origin = min(received.min(), begin.min())
    span = max(received.max(), begin.max()) - origin + 2 * SECOND_US
    key = symbol * span + (received - origin)
    asked = of * span + (begin - origin)
    first = np.searchsorted(key, asked, side="right") - 1
    last = np.searchsorted(key, asked + SECOND_US, side="left") - 1
    first += (first < 0) | (symbol[first] != of)  # nothing known yet when the second began

    steady = first == last
    result[steady] = spread[first[steady]]
    moving = np.flatnonzero(first < last)
    if moving.size:
        # Expand each second into its pieces of constant spread.
        counts = last[moving] - first[moving] + 1
        offsets = np.cumsum(counts) - counts
        piece = np.arange(counts.sum()) + np.repeat(first[moving] - offsets, counts)
        second = np.repeat(asked[moving], counts)
        until = np.append(key[1:], key[-1])[piece]
        until[offsets + counts - 1] = asked[moving] + SECOND_US
        weight = until - np.maximum(key[piece], second)
        weighted = np.add.reduceat(weight * spread[piece], offsets)
        result[moving] = weighted / np.add.reduceat(weight, offsets)
    return result


def _receive_order(symbols: Ints, received: Ints, sequence: Ints) -> Ints:
    same = symbols[1:] == symbols[:-1]
    if not (same & (np.diff(received) < 0)).any():
        return np.arange(symbols.size)
    return np.lexsort((sequence, received, symbols))
