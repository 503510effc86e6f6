"""What a build of an exchange and day reads: which rows, and each once.

How far before and after a day its tables look is decided here, so that all look at the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

import polars as pl

from lakehouse_pipeline.lake.commit import Commit
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.windows import HOUR, TimeWindow

from .kinds import QUOTES, judge

COVERAGE = "raw.coverage"
BARS_1S = "market.bars_1s"
FETCHED = "raw.fetches"

# A day's first bars need the last price and counter before midnight. A quiet symbol may have said
# nothing for minutes; an hour covers all but the deadest at a 24th of a day's reading.
LOOK_BACK = HOUR
# A row may be received, and so filed by coverage, this much after what it speaks of.
LATE_ARRIVAL = timedelta(hours=1)
# Leases end sessions within hours; a recording that is replayed may hold longer ones.
LONGEST_SESSION = timedelta(days=7)


# What is made of quotes uses these; the others are for who reads quotes themselves.
COLUMNS = [
    *("exchange", "symbol", "event_time", "received_at", "kind", "changed"),
    *("last_price", "last_time", "cumulative_volume", "bid", "ask", "update_mode"),
    *("day_open_time", "session_id", "writer_id", "sequence"),
]


def reading_of(day: date) -> TimeWindow:
    """Return of when a build of *day*, or of any part of it, reads quotes."""
    window = TimeWindow.of_day(day)
    return TimeWindow(window.start - LOOK_BACK, window.end + LATE_ARRIVAL)


class Inputs:
    """The quotes of a day, their verdicts, coverage and seconds, for all that is built of them.

    What was read or built is given again as long as its table has no newer commit: a build that
    lost a race and computes again sees what is there now, as if nothing had been kept.
    """

    def __init__(
        self, lake: Lakehouse, exchange: str, day: date, *, symbols: Sequence[str] | None = None
    ) -> None:
        self._lake, self._exchange, self._day = lake, exchange, day
        self._symbols = None if symbols is None else tuple(symbols)
        self.wide = reading_of(day)
        self._kept: dict[str, tuple[int, pl.DataFrame]] = {}
        self._built: tuple[int, TimeWindow, pl.DataFrame] | None = None

    def quotes(self) -> pl.DataFrame:
        """Return the quotes of ``wide``, the COLUMNS alone."""
        return self._once("quotes", QUOTES, self._read_quotes)

    def take_quotes(self) -> pl.DataFrame:
        """Return the quotes and keep them no longer; they are most of a build's memory."""
        quotes = self.quotes()
        del self._kept["quotes"]
        return quotes

    def verdicts(self) -> pl.DataFrame:
        """Return what the counters are; see ``kinds.judge``."""
        return self._once("verdicts", QUOTES, self._judge)

    def coverage(self, window: TimeWindow | None = None) -> pl.DataFrame:
        """Return the marks that can matter for *window*, or all there are."""
        return self._once(f"coverage {window}", COVERAGE, lambda: self._read_coverage(window))

    def seconds(self, part: TimeWindow) -> pl.DataFrame:
        """Return the one-second bars of *part*."""
        if self._built is not None:
            sequence, window, bars = self._built
            if window == part and sequence == self._lake.head(BARS_1S):
                return bars
        rows = self._lake.scan(BARS_1S, exchange=self._exchange, window=part, symbols=self._symbols)
        return rows.collect()

    def keep_seconds(self, part: TimeWindow, bars: pl.DataFrame, commit: Commit) -> None:
        """Note the one-second bars of *part* as they were just written."""
        self._built = commit.sequence, part, bars

    def _once(self, name: str, table: str, read: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        head = self._lake.head(table)
        known = self._kept.get(name)
        if known is None or known[0] != head:
            known = self._kept[name] = head, read()
        return known[1]

    def _read_quotes(self) -> pl.DataFrame:
        rows = self._lake.scan(
            QUOTES, exchange=self._exchange, window=self.wide, symbols=self._symbols
        )
        return in_one_piece(rows, COLUMNS)

    def _judge(self) -> pl.DataFrame:
        return judge(self._lake, self._exchange, self._day, quotes=self.quotes())

    def _read_coverage(self, window: TimeWindow | None) -> pl.DataFrame:
        if window is None:
            return self._lake.scan(COVERAGE, exchange=self._exchange).collect()
        return read_coverage(self._lake, self._exchange, window)


def in_one_piece(rows: pl.LazyFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return the columns *names* of *rows*, each as one array.

    Each kernel that looks at a column as an array would make it so by itself. Half of them are
    read at once and made so one after the other: so there are never two of all.
    """
    whole: list[pl.Series] = []
    half = -(-len(names) // 2)
    for some in (names[:half], names[half:]):
        pieces = rows.select(some).collect().get_columns()
        while pieces:
            whole.append(pieces.pop(0).rechunk())
    return pl.DataFrame(whole)


def read_coverage(lake: Lakehouse, exchange: str, window: TimeWindow) -> pl.DataFrame:
    """Return the coverage marks that can matter for *window*.

    Marks are filed by their start. A session's alive marks go on from commit to commit, but the
    symbols it subscribed to were named once, when it opened: those are looked up further back.
    """
    near = TimeWindow(window.start - timedelta(days=1), window.end + LATE_ARRIVAL)
    far = TimeWindow(window.start - LONGEST_SESSION, near.start)
    named = pl.col("kind").is_in([Mark.SUBSCRIBED, Mark.UNSUBSCRIBED, Mark.STALLED, Mark.REFUSED])
    marks = lake.scan(COVERAGE, exchange=exchange, window=near)
    earlier = lake.scan(COVERAGE, exchange=exchange, window=far).filter(named)
    return pl.concat([earlier, marks]).collect()
