"""A day of an exchange as its worker lands it: seeded, of the shape of real quotes.

Updates come at random, 0.9 a second of each symbol on average, the liveliest symbols six times as
often as the quietest. Prices walk in cents, the counter rises by odd lots, three in ten updates
are quotes alone, and a trade is seen some hundred milliseconds after its second. All of it is one
session whose first rows are restored states, with an alive mark each quarter minute.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.quotes import HAPPENED, Kind
from lakehouse_pipeline.market.windows import TimeWindow

EXCHANGE = "BINANCE"
RATE = 0.9  # updates a second
CADENCE = timedelta(seconds=15)
SHARES = {Kind.PRICE: 0.45, Kind.VOLUME: 0.2, Kind.TIME: 0.05, Kind.QUOTE: 0.3, Kind.RESTORE: 0.0}
CHANGED = [
    "last_price,last_time,cumulative_volume,bid,ask",
    "last_time,cumulative_volume",
    "last_time",
    "bid,ask,bid_size,ask_size",
    "last_price,last_time,cumulative_volume,bid,ask,update_mode",
]
_SECOND = 1_000_000


def names_of(symbols: int) -> list[str]:
    return [f"{EXCHANGE}:S{number:03}USDT" for number in range(symbols)]


def quotes_of(window: TimeWindow, symbols: int, *, seed: int = 7) -> pl.DataFrame:
    """Return the quotes received in *window*, which starts at midnight, in canonical order."""
    random = np.random.default_rng(seed)
    liveliness = np.geomspace(0.4, 2.4, symbols)
    rates = RATE * liveliness / liveliness.mean()
    parts = [
        _of_symbol(random, window, name, rate, number)
        for number, (name, rate) in enumerate(zip(names_of(symbols), rates, strict=True))
    ]
    return pl.concat(parts).sort(HAPPENED)


def _of_symbol(
    random: np.random.Generator, window: TimeWindow, name: str, rate: float, number: int
) -> pl.DataFrame:
    seconds = window.length.total_seconds()
    gaps = random.exponential(1 / rate, int(seconds * rate * 1.1) + 99) + 1e-4
    offsets = np.cumsum(gaps)
    offsets = np.concatenate(([0.0], 0.3 + offsets[offsets < seconds - 0.4]))
    count = offsets.size
    kind = random.choice(len(SHARES), count, p=list(SHARES.values()))
    kind[0] = list(SHARES).index(Kind.RESTORE)
    start = round(window.start.timestamp() * 1e6)
    received = start + (offsets * _SECOND).astype(np.int64)
    delay = random.integers(100_000, 700_000, count)
    traded = np.maximum.accumulate(np.maximum(received - delay, start)) // _SECOND * _SECOND
    kinds = list(SHARES)
    touched = kind != kinds.index(Kind.QUOTE)
    last_time = traded[np.maximum.accumulate(np.where(touched, np.arange(count), 0))]
    moved = (kind == kinds.index(Kind.PRICE)).astype(np.int64)
    price = 1_000 * (number + 1) + np.cumsum(moved * random.integers(-20, 21, count)) / 100
    traded_lots = touched & (kind != kinds.index(Kind.TIME))
    lots = np.cumsum(np.where(traded_lots, random.integers(1, 400_000, count), 0))
    width = random.integers(1, 9, count) / 100
    observing = touched & (np.arange(count) > 0)
    values = {
        "event_time": np.where(observing, last_time, received),
        "received_at": received,
        "last_price": price,
        "last_time": last_time,
        "cumulative_volume": lots / 100_000,
        "bid": (price - width).round(2),
        "ask": (price + width).round(2),
        "bid_size": random.integers(1, 9_999, count) / 100,
        "ask_size": random.integers(1, 9_999, count) / 100,
    }
    known = {each: pl.Series(each, value) for each, value in values.items()} | {
        "exchange": pl.lit(EXCHANGE),
        "symbol": pl.lit(name),
        "kind": pl.Series([each.value for each in SHARES]).gather(kind).alias("kind"),
        "changed": pl.Series(CHANGED).gather(kind).alias("changed"),
        "update_mode": pl.lit("streaming"),
        "session_id": pl.lit("session-1"),
        "writer_id": pl.lit("writer-1"),
        # One writer numbers the rows of all symbols; that it leaves numbers out is no matter.
        "sequence": pl.int_range(count, dtype=pl.Int64, eager=True) * 1_000 + number,
    }
    return pl.DataFrame({"row": np.arange(count)}).select(
        pl.lit(known[each]).cast(type_).alias(each)
        if isinstance(known.get(each), pl.Series)
        else known.get(each, pl.lit(None)).cast(type_).alias(each)
        for each, type_ in schemas.QUOTES.items()
    )


def coverage_of(window: TimeWindow, symbols: int, *, since: datetime | None = None) -> pl.DataFrame:
    """Return the marks of *window*; with those of the start unless it began at *since* before."""
    rows = []
    if since is None:
        rows += [(Mark.OPENED, None, window.start, window.start)]
        first = window.start
        rows += [(Mark.SUBSCRIBED, name, first, first) for name in names_of(symbols)]
    at = window.start
    while at < window.end:
        rows.append((Mark.ALIVE, None, at, min(at + CADENCE, window.end)))
        at += CADENCE
    base = round((window.start.timestamp() % 864_000) * 1_000)
    return pl.DataFrame(
        [
            (EXCHANGE, "session-1", kind.value, name, *edges, None, None, "writer-1", base + number)
            for number, (kind, name, *edges) in enumerate(rows)
        ],
        schema=schemas.COVERAGE,
        orient="row",
    )
