"""The part of a table that one writer replaces as a whole.

Add here what is true of slices alone; which files hold one belongs to ``planning``.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lakehouse_pipeline.market.windows import DAY, TimeWindow, floor


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of *exchange* whose time column lies in *window*, of *symbols* alone if given."""

    exchange: str
    window: TimeWindow
    symbols: tuple[str, ...] | None = None

    @property
    def spans_whole_days(self) -> bool:
        start, end = self.window.start, self.window.end
        return floor(start, DAY) == start and floor(end, DAY) == end

    def rows(self, time_column: str) -> pl.Expr:
        """Return the condition that a row is in this slice."""
        condition = (pl.col("exchange") == self.exchange) & in_window(time_column, self.window)
        if self.symbols is not None:
            condition &= pl.col("symbol").is_in(list(self.symbols))
        return condition


def in_window(time_column: str, window: TimeWindow) -> pl.Expr:
    """Return the condition that *time_column* lies in the half-open *window*."""
    time = pl.col(time_column)
    return (time >= window.start) & (time < window.end)
