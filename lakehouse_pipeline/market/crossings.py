"""What the counter did across a hole in coverage: the exact volume that was missed.

The attribution of each delta is ``volume``'s; here it is looked up for one hole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from lakehouse_pipeline.market.coverage import runs
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quotes import RECEIVED, Kind
from lakehouse_pipeline.market.volume import TRADE_COLUMNS, book, from_lots
from lakehouse_pipeline.market.windows import TimeWindow

VolumeOn = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Crossing:
    """What the counter did across one hole; None where that is not known.

    *start*, *end* and *missed* belong to the counter day of *trade*, the last trade known at the
    far side: *start* is zero when the counter began anew inside the hole.
    """

    before: float | None = None
    before_trade: datetime | None = None
    start: float | None = None
    end: float | None = None
    missed: float | None = None
    trade: datetime | None = None

    def volume_on(self, day: date, hole: TimeWindow) -> VolumeOn:
        """Return missed volume, counter before and counter after for the hole's part on *day*.

        What was traded between the last update of a day and the reset never shows, so a part that
        a reset follows has no figure; after the last trade there was nothing to miss.
        """
        first = hole.start.date()
        if self.missed is None or self.trade is None:
            return None, self.before if day == first else None, None
        counted_on = max(self.trade.date(), first)
        if day == counted_on:
            return self.missed, self.start, self.end
        if day > counted_on:
            return 0.0, self.end, self.end
        return None, self.before if day == first else None, None

    @property
    def evidence(self) -> str:
        """What the counter proves, in words."""
        if self.missed is None:
            return "what the counter did is not known"
        if self.missed == 0 and self.trade == self.before_trade:
            return "counter and last trade unchanged: nothing was missed"
        return f"counter {self.start:.15g} to {self.end:.15g}"


@dataclass(frozen=True, slots=True)
class Crossings:
    """Every symbol's booked rows, arranged to be asked about holes."""

    booked: Mapping[str, pl.DataFrame]  # in order of receipt
    runs: Mapping[str, list[TimeWindow]]

    @classmethod
    def of(cls, quotes: pl.DataFrame, coverage: pl.DataFrame, since: datetime) -> Crossings:
        """Return the crossings of *quotes*, which are complete from *since* on."""
        rows = select_line(quotes, coverage).filter(pl.col("kind") != Kind.QUOTE)
        seen = runs(coverage)
        booking = book(rows.select(TRADE_COLUMNS), seen, since=since)
        booked = rows.select(*RECEIVED, "last_time").with_columns(
            before=pl.Series(booking.before).fill_nan(None),
            after=pl.Series(booking.after).fill_nan(None),
            missed=pl.Series(from_lots(booking.missed, booking.decimals)),
            closes_gap=pl.Series(booking.closes_gap),
        )
        return cls(
            {
                part["symbol"][0]: part
                for part in booked.sort(RECEIVED).partition_by("symbol", maintain_order=True)
            },
            seen,
        )

    def across(self, symbol: str, hole: TimeWindow) -> Crossing:
        """Return what the counter of *symbol* did across *hole*."""
        rows = self.booked.get(symbol)
        if rows is None:
            return Crossing()
        received = pl.col("received_at")
        known = rows.filter(received < hole.end, pl.col("after").is_not_null())
        before, before_trade = next(
            known.tail(1).select("after", "last_time").iter_rows(), (None, None)
        )
        starts = [run.start for run in self.runs.get(symbol, [])]
        next_run = min((start for start in starts if start > hole.end), default=None)
        closing = rows.filter(
            pl.col("closes_gap"),
            received >= hole.end,
            received < next_run if next_run is not None else pl.lit(value=True),
        ).head(1)
        if closing.is_empty():
            return Crossing(before, before_trade)
        missed, end, trade = closing.select("missed", "after", "last_time").row(0)
        start = closing["before"][0]
        return Crossing(before, before_trade, start or 0.0, end, missed, trade)
