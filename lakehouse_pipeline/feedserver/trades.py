"""A market of real trades from Parquet files, with best quotes where a file gives them.

Trades: ``ts_us`` (epoch µs, exchange time), ``price``, ``size``, optionally ``side`` (taker) and
``recv_us``. Quotes: ``recv_us`` and/or ``event_ms``, ``bid``, ``bid_size``, ``ask``, ``ask_size``.
Recorded time is kept unless the market is moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from lakehouse_pipeline.errors import InputFileError

from .instruments import Instrument, check_name
from .moving import shift
from .tape import HOUR_US, NO_BOOK, Book, Ints, Tape, from_us
from .ticker import INTERVAL, Hour, TapeMarket

MOST_DIGITS = 8


def trades_market(
    trades: Mapping[str, Path],
    quotes: Mapping[str, Path] | None = None,
    *,
    start: datetime | None = None,
    interval: timedelta = INTERVAL,
    late_volume: float = 0.25,
) -> TapeMarket:
    """Return the market of the files, each of one symbol, moved to *start* (see `moving`).

    Raises:
        InputFileError: a file is unreadable, empty or lacks a column.
        UsageError: a symbol is no full name, or has quotes but no trades.
    """
    series = {check_name(name): _read_symbol(name, path) for name, path in trades.items()}
    if not series:
        raise InputFileError("A market of trades needs a file.", mend="Give --trades SYMBOL=FILE.")
    for name, path in (quotes or {}).items():
        if name not in series:
            raise InputFileError(f"{path}: {name} has no trades.", mend="Give --trades for it too.")
        series[name].book = _read_book(path, series[name])
    first = min(int(one.tape.time[0]) for one in series.values())
    last = max(int(one.tape.time[-1]) for one in series.values())
    moved = shift(start, first, last)
    for one in series.values():
        one.move(moved)
    return TapeMarket(
        {name: one.instrument for name, one in series.items()},
        lambda name, hour: series[name].hour(hour),
        span=lambda name: series[name].span,
        starts_at=from_us(first + moved),
        interval=interval,
        late_volume=late_volume,
    )


@dataclass(slots=True)
class _Series:
    """One symbol's files."""

    instrument: Instrument
    tape: Tape
    clock_error: int  # µs the collector's clock was behind the exchange's
    book: Book = NO_BOOK

    def move(self, by: int) -> None:
        self.tape = Tape(self.tape.time + by, self.tape.ticks, self.tape.lots, self.tape.buy)
        b = self.book
        self.book = Book(b.time + by, b.bid, b.bid_lots, b.ask, b.ask_lots)

    @property
    def span(self) -> range:
        first, last = self.tape.time[0] // HOUR_US, self.tape.time[-1] // HOUR_US
        return range(int(first), int(last) + 1)

    def hour(self, hour: int) -> Hour:
        start, end = hour * HOUR_US, (hour + 1) * HOUR_US
        return Hour(self.tape.cut(start, end), self.book.cut(start, end))


def _read_symbol(name: str, path: Path) -> _Series:
    frame = _read(path, ("ts_us", "price", "size"))
    if frame.is_empty():
        raise InputFileError(f"{path} holds no trades.")
    frame = frame.sort("ts_us", maintain_order=True)
    instrument = Instrument(
        name, price_scale=_scale(frame["price"]), size_scale=_scale(frame["size"])
    )
    time = frame["ts_us"].cast(pl.Int64).to_numpy()
    side = frame["side"] if "side" in frame.columns else pl.Series(["buy"] * len(frame))
    behind = 0
    if "recv_us" in frame.columns:
        # Received before it happened means that the collector's clock was slow.
        behind = max(0, int(np.median(time - frame["recv_us"].to_numpy())))
    tape = Tape(
        time,
        _integers(frame["price"], instrument.price_scale),
        _integers(frame["size"], instrument.size_scale),
        (side == "buy").to_numpy(),
    )
    return _Series(instrument, tape, behind)


def _read_book(path: Path, series: _Series) -> Book:
    frame = _read(path, ("bid", "bid_size", "ask", "ask_size"))
    times = [
        pl.col(column).cast(pl.Int64) * factor + shift
        for column, factor, shift in (("event_ms", 1_000, 0), ("recv_us", 1, series.clock_error))
        if column in frame.columns
    ]
    if not times:
        raise InputFileError(f"{path} has no time column.", mend="Name it recv_us or event_ms.")
    frame = frame.with_columns(time=pl.coalesce(times)).drop_nulls("time")
    frame = frame.sort("time", maintain_order=True)
    instrument = series.instrument
    return Book(
        frame["time"].to_numpy(),
        _integers(frame["bid"], instrument.price_scale),
        _integers(frame["bid_size"], instrument.size_scale),
        _integers(frame["ask"], instrument.price_scale),
        _integers(frame["ask_size"], instrument.size_scale),
    )


def _read(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputFileError(
            f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}"
        ) from error
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise InputFileError(
            f"{path} lacks the column {missing[0]!r}.", mend=f"Columns needed: {', '.join(needed)}."
        )
    return frame


def _scale(values: pl.Series) -> int:
    """Return the power of ten of which *values* are whole multiples, 10^8 at most."""
    for digits in range(MOST_DIGITS):
        if (values.round(digits) == values).all():
            return int(10**digits)
    return int(10**MOST_DIGITS)


def _integers(values: pl.Series, scale: int) -> Ints:
    numbers: Ints = np.rint(values.to_numpy() * scale).astype(np.int64)
    return numbers
