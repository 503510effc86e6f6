"""What a feed server needs to know of a market, as a function of market time.

The contract of every market is here. How trades become quote updates is `ticker`; where the
trades come from is `generated`, `trades` or `recording`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import polars as pl

from .instruments import Instrument

TAPE = pl.Schema(
    {
        "time": pl.Datetime("us", "UTC"),
        "price": pl.Float64(),
        "size": pl.Float64(),
        "side": pl.String(),  # of the taker
    }
)
MARKET_BARS = pl.Schema(
    {
        "open_time": pl.Datetime("us", "UTC"),
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
    }
)


class Counter(StrEnum):
    """What the quote field ``volume`` counts."""

    SESSION = "session"  # since 00:00 UTC
    ROLLING = "rolling"  # the last 24 hours


class Update(NamedTuple):
    """The wire fields of one quote packet and when the feed sends it."""

    at: datetime
    values: dict[str, Any]  # wire JSON values: numbers, strings, lists, None


class Market(Protocol):
    """Everything is a function of its arguments: asking twice gives the same answer.

    ``snapshot(s, a)`` folded with ``updates(s, a, b)`` is ``snapshot(s, b)``.
    """

    starts_at: datetime | None
    """Where its recorded time begins; None when it can start at any time."""

    def instruments(self) -> Mapping[str, Instrument]:
        """Return what is traded, by full name such as ``BINANCE:BTCUSDT``."""
        ...

    def snapshot(self, symbol: str, at: datetime, counter: Counter) -> dict[str, Any]:
        """Return every wire field of *symbol* as the feed has sent it up to *at* (inclusive)."""
        ...

    def updates(
        self, symbol: str, since: datetime, until: datetime, counter: Counter
    ) -> list[Update]:
        """Return what the feed sends in ``(since, until]``, in order."""
        ...

    def bars(self, symbol: str, step: timedelta, start: datetime, end: datetime) -> pl.DataFrame:
        """Return the bars (`MARKET_BARS`) of the trades in ``[start, end)`` by multiples of *step*.

        No trade, no bar. The last bar holds only what was traded before *end*.
        """
        ...

    def tape(self, symbol: str, start: datetime, end: datetime) -> pl.DataFrame:
        """Return the trades (`TAPE`) in ``[start, end)``: the ground truth."""
        ...
