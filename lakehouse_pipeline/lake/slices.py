"""Which rows: a selection for readers, a slice for the one writer that replaces it as a whole.

Add here what is true of the conditions alone; which files can hold such rows belongs to
``planning``.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from lakehouse_pipeline.market.windows import DAY, TimeWindow, floor


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows that meet every condition given; the window is of the table's time column.

    *received_since* can be asked of tables with ``received_at`` alone.
    """

    exchange: str | None = None
    window: TimeWindow | None = None
    symbols: tuple[str, ...] | None = None
    received_since: datetime | None = None

    def rows(self, time_column: str) -> pl.Expr:
        """Return the condition that a row is selected."""
        time = pl.col(time_column)
        conditions = []
        if self.exchange is not None:
            conditions.append(pl.col("exchange") == self.exchange)
        if self.symbols is not None:
            conditions.append(pl.col("symbol").is_in(list(self.symbols)))
        if self.window is not None:
            conditions += [time >= self.window.start, time < self.window.end]
        if self.received_since is not None:
            conditions.append(pl.col("received_at") >= self.received_since)
        # Joined by "and", they are compared with the files' statistics; all_horizontal is not.
        return functools.reduce(operator.and_, conditions, pl.lit(True))


EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of *exchange* whose time column lies in *window*, of *symbols* alone if given."""

    exchange: str
    window: TimeWindow
    symbols: tuple[str, ...] | None = None

    @property
    def selection(self) -> Selection:
        return Selection(self.exchange, self.window, self.symbols)

    @property
    def spans_whole_days(self) -> bool:
        start, end = self.window.start, self.window.end
        return floor(start, DAY) == start and floor(end, DAY) == end

    def __str__(self) -> str:
        names = "" if self.symbols is None else f" ({', '.join(self.symbols)})"
        start, end = (f"{each:%Y-%m-%d %H:%M:%S}" for each in (self.window.start, self.window.end))
        return f"{self.exchange}{names} {start} to {end} UTC"
