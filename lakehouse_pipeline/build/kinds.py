"""Which kind of counter each symbol has on a day: a function of quotes alone.

The verdict of a day is that of its own updates, received before its end, with an hour before
midnight for the reset. A symbol that showed too little is judged with the day before as well, then
with the week. So a backfill in any order, a repeated build and a tick come to the same kinds.

While a day goes on its verdict may change, early in it mostly. What a tick books by is stored in
``market.symbols``, judged anew each time the day has doubled, and each hour by its asset. Bars
remember by what they were booked (``fingerprint``); where that is no longer the verdict, the next
tick rebuilds the day from its midnight. So the bars of a day are always those of its verdict.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.counters import COUNTER_COLUMNS, as_kinds, detect_kinds
from lakehouse_pipeline.market.volume import CounterKind
from lakehouse_pipeline.market.windows import DAY, HOUR, TimeWindow

QUOTES = "raw.quotes"
SYMBOLS = "market.symbols"
EARLIER = (1, 7)  # days before, for symbols of which the day says too little

Kinds = Mapping[str, CounterKind]


def judge(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    quotes: pl.DataFrame | None = None,
    symbols: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return the verdict on each symbol's counter on *day*; see ``counters.detect_kinds``.

    *quotes*: those of the day and the hour before it, if they were read already.
    """
    if quotes is None:
        quotes = _read(lake, exchange, day, back=0, symbols=symbols)
    end = TimeWindow.of_day(day).end
    verdicts = detect_kinds(quotes, until=end)
    for back in EARLIER:
        undecided = verdicts.filter(counter_kind=CounterKind.UNKNOWN)["symbol"].to_list()
        if not undecided:
            break
        more = detect_kinds(_read(lake, exchange, day, back=back, symbols=undecided), until=end)
        verdicts = pl.concat([verdicts.filter(~pl.col("symbol").is_in(undecided)), more])
    return verdicts.sort("symbol")


def stored_kinds(lake: Lakehouse, exchange: str, day: date) -> dict[str, CounterKind] | None:
    """Return the kinds ``market.symbols`` has for *day*; None if it says nothing of it."""
    rows = lake.scan(SYMBOLS, exchange=exchange, window=TimeWindow.of_day(day)).collect()
    return None if rows.is_empty() else as_kinds(rows.drop_nulls("volume_basis"))


def kinds_on(
    lake: Lakehouse, exchange: str, day: date, *, symbols: Sequence[str] | None = None
) -> Kinds:
    """Return the kinds of *day*, from ``market.symbols`` or, where that is silent, judged."""
    stored = stored_kinds(lake, exchange, day)
    if stored is not None:
        return stored
    return as_kinds(judge(lake, exchange, day, symbols=symbols))


def fingerprint(kinds: Kinds) -> int:
    """Return a number that is the same for the same kinds; zero if all are a session's."""
    return zlib.crc32(repr(sorted(kinds.items())).encode()) if kinds else 0


def _read(
    lake: Lakehouse, exchange: str, day: date, *, back: int, symbols: Sequence[str] | None
) -> pl.DataFrame:
    window = TimeWindow.of_day(day)
    wide = TimeWindow(window.start - back * DAY - HOUR, window.end + HOUR)
    names = tuple(symbols) if symbols is not None else None
    rows = lake.scan(QUOTES, exchange=exchange, window=wide, symbols=names).select(COUNTER_COLUMNS)
    return rows.collect()
