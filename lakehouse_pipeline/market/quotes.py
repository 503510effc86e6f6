"""What one update of the feed means: its kind, its time, its place in the order.

Add here what can be said of a quote row by itself or of rows beside it. Which of two overlapping
sessions counts belongs to ``lines``, the counter's arithmetic to ``volume``.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lakehouse_pipeline.market.arrays import (
    Bools,
    Ints,
    beginnings,
    bools,
    microseconds,
    text_changes,
)
from lakehouse_pipeline.market.schemas import QUOTES


class Kind(StrEnum):
    """What an update was. The first three touch the last price and happen at ``last_time``."""

    PRICE = "price"  # a trade at a new price
    VOLUME = "volume"  # a trade at the same price: the counter moved
    TIME = "time"  # a trade of which only the second is known so far
    QUOTE = "quote"  # bid or ask alone
    RESTORE = "restore"  # state handed over, nothing happened: first snapshots, static re-sends


OBSERVING = (Kind.PRICE, Kind.VOLUME, Kind.TIME)
NUMBERS = {kind: np.int8(number) for number, kind in enumerate(Kind, start=1)}

# Wire key → column, in the order of the schema; the wire's times are epoch seconds.
COLUMNS = {
    "lp": "last_price",
    "lp_time": "last_time",
    "volume": "cumulative_volume",
    "ch": "change",
    "chp": "change_percent",
    "bid": "bid",
    "ask": "ask",
    "bid_size": "bid_size",
    "ask_size": "ask_size",
    "open_price": "day_open",
    "high_price": "day_high",
    "low_price": "day_low",
    "prev_close_price": "prev_day_close",
    "open_time": "day_open_time",
    "update_mode": "update_mode",
}

_BOOK = frozenset({"bid", "ask", "bid_size", "ask_size"})
_NEW_DAY = frozenset({"open_price", "prev_close_price", "open_time"})

_COUNTER = "cumulative_volume"

# The order in which things happened, and the order in which they were seen. Both end in the
# row's identity, so they are total and no input order shows through.
HAPPENED = ["symbol", "event_time", "received_at", "writer_id", "sequence"]
RECEIVED = ["symbol", "received_at", "writer_id", "sequence"]


def classify(changed: AbstractSet[str], *, restoring: bool) -> Kind:
    """Return the kind of an update that carried the wire keys *changed*.

    *restoring*: the session has not yet completed this symbol's first snapshot. A counter that
    comes with a new daily open but without a trade is the day rolling over: state, not a touch.
    """
    if restoring:
        return Kind.RESTORE
    if "lp" in changed:
        return Kind.PRICE
    if "volume" in changed and ("lp_time" in changed or not changed & _NEW_DAY):
        return Kind.VOLUME
    if "lp_time" in changed:
        return Kind.TIME
    return Kind.QUOTE if changed & _BOOK else Kind.RESTORE


def changed_columns(changed: AbstractSet[str]) -> str:
    """Return the ``changed`` column for the wire keys *changed*: our names, in schema order."""
    return ",".join(column for key, column in COLUMNS.items() if key in changed)


def event_time(kind: Kind, last_time: datetime | None, received_at: datetime) -> datetime:
    """Return when an update happened: its trade's second, else when it was seen."""
    return last_time if kind in OBSERVING and last_time is not None else received_at


def frame(rows: Iterable[tuple[Any, ...]]) -> pl.DataFrame:  # Any: one row's values differ in type
    """Return rows given as tuples in schema order as a QUOTES frame."""
    return pl.DataFrame(list(rows), schema=QUOTES, orient="row")


def numbered(kind: pl.Series) -> npt.NDArray[np.int8]:
    """Return kinds as their NUMBERS; zero for what begins like none."""
    numbers = np.zeros(kind.len(), dtype=np.int8)
    if not numbers.size:
        return numbers
    begins = beginnings(kind)  # which no two kinds share
    for each, number in NUMBERS.items():
        own = np.frombuffer(each.encode()[:4], dtype="<u4")
        numbers += (begins == own).view(np.int8) * number
    return numbers


def observes_price() -> pl.Expr:
    """Whether a row is a price observation: it touched ``last_price`` and has one."""
    return pl.col("kind").is_in(OBSERVING) & pl.col("last_price").is_not_null()


def counter_time() -> pl.Expr:
    """Return the instant whose UTC date is that of the row's counter.

    The last trade's, or of a restored state the daily open if that is later: then the counter has
    returned to zero and nothing was traded since.
    """
    opened = (pl.col("kind") == Kind.RESTORE) & (pl.col("day_open_time") <= pl.col("received_at"))
    trade = pl.max_horizontal("last_time", pl.when(opened).then("day_open_time"))
    return pl.coalesce(trade, "received_at").alias("counter_time")


def observes_counter() -> pl.Expr:
    """Whether a row shows the counter: it carried it, or restored it."""
    carried = pl.col("changed").str.contains(_COUNTER, literal=True)
    restored = pl.col("kind") == Kind.RESTORE
    return (carried | restored) & pl.col("cumulative_volume").is_not_null()


def showing_counter(changed: pl.Series, kinds: npt.NDArray[np.int8]) -> Bools:
    """Return which rows carried or restored the counter, be it null, as ``observes_counter``."""
    texts = changed.unique()  # few, and looked at once
    carrying = texts.filter(texts.str.contains(_COUNTER, literal=True))
    shows: Bools = bools(changed.is_in(carrying.implode())) | (kinds == NUMBERS[Kind.RESTORE])
    return shows


def canonical(quotes: pl.DataFrame) -> pl.DataFrame:
    """Return *quotes* in the order they happened, each row once.

    Sealed files are in this order already; that is looked up, not assumed, and costs a fraction
    of the sort it saves.
    """
    if quotes.height < 2:
        return quotes
    ordered, repeats = _inspect(quotes)
    if not ordered:
        quotes = quotes.sort(HAPPENED)
        _, repeats = _inspect(quotes)
    if repeats.size:
        keep = np.ones(quotes.height, dtype=np.bool_)
        keep[repeats] = False
        quotes = quotes.filter(pl.Series(keep))
    return quotes


def _inspect(quotes: pl.DataFrame) -> tuple[bool, Ints]:
    """Return whether rows are in canonical order, and which repeat the row before them."""
    symbol = quotes["symbol"]
    starts = text_changes(symbol)
    happened, received = microseconds(quotes["event_time"]), microseconds(quotes["received_at"])
    same = np.ones(quotes.height - 1, dtype=np.bool_)
    same[starts[1:] - 1] = False
    together = same & (happened[1:] == happened[:-1])
    behind = same & (happened[1:] < happened[:-1])
    behind |= together & (received[1:] < received[:-1])
    # Writers and sequences are compared only where both times are equal, which is rare.
    ties = np.flatnonzero(together & (received[1:] == received[:-1])) + 1
    later, earlier = quotes["writer_id"][ties], quotes["writer_id"][ties - 1]
    sequence = quotes["sequence"].to_numpy()
    step = sequence[ties] - sequence[ties - 1]
    same_writer = (later == earlier).to_numpy()
    misplaced = (later < earlier).to_numpy() | (same_writer & (step < 0))
    heads = symbol[starts]
    sorted_names = bool((heads.head(-1) < heads.tail(-1)).all())
    ordered = sorted_names and not behind.any() and not misplaced.any()
    return ordered, ties[same_writer & (step == 0)]
