"""What the counter did across a hole in coverage: the exact volume that was missed.

The attribution of each delta is ``volume``'s; here it is looked up for one hole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from lakehouse_pipeline.market.coverage import runs
from lakehouse_pipeline.market.decimals import exact_total, from_lots
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quotes import RECEIVED, Kind, counter_time
from lakehouse_pipeline.market.volume import Updates, book
from lakehouse_pipeline.market.windows import TimeWindow

VolumeOn = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Step:
    """What the counter rose by over one hole, on the counter day of ``at``.

    *start* is zero where the counter began anew inside the hole.
    """

    at: datetime
    trade: datetime | None
    missed: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """The counter before a hole, and its steps to the far side: none while that is not known.

    There is more than one step where a session in between lived too short to cover anything.
    """

    before: float | None = None
    before_trade: datetime | None = None
    steps: tuple[Step, ...] = ()

    def volume_on(self, day: date, hole: TimeWindow) -> VolumeOn:
        """Return missed volume, counter before and counter after for the hole's part on *day*.

        What was traded between the last update of a day and the reset never shows, so a part that
        a reset follows has no figure; after the last trade there was nothing to miss.
        """
        first = hole.start.date()
        mine = [step for step in self.steps if max(step.at.date(), first) == day]
        if not mine and self.steps and day > max(step.at.date() for step in self.steps):
            return 0.0, None, None
        if not mine:
            return None, self.before if day == first else None, None
        missed = exact_total([step.missed for step in mine])
        levels = [step for step in mine if step.at.date() == day]  # of this day's counter
        return missed, *((levels[0].start, levels[-1].end) if levels else (None, None))

    @property
    def evidence(self) -> str:
        """What the counter proves, in words."""
        if not self.steps:
            return "what the counter did is not known"
        last = self.steps[-1]
        if last.trade == self.before_trade and not any(step.missed for step in self.steps):
            return "counter and last trade unchanged: nothing was missed"
        return f"counter {self.steps[0].start:.15g} to {last.end:.15g}"


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
        booking = book(Updates.among(rows), seen, since=since)
        booked = rows.select(*RECEIVED, "last_time", counter_time()).with_columns(
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
        starts = [run.start for run in self.runs.get(symbol, [])]
        far_side = min((start for start in starts if start > hole.start), default=hole.end)
        beyond = min((start for start in starts if start > hole.end), default=None)
        received = pl.col("received_at")
        known = rows.filter(received < far_side, pl.col("after").is_not_null()).tail(1)
        before, before_trade = next(known.select("after", "last_time").iter_rows(), (None, None))
        closing = rows.filter(
            pl.col("closes_gap"),
            received >= far_side,
            True if beyond is None else received < beyond,
        ).select("counter_time", "last_time", "missed", "before", "after")
        steps = (
            Step(at, trade, missed, start or 0.0, end)
            for at, trade, missed, start, end in closing.iter_rows()
        )
        return Crossing(before, before_trade, tuple(steps))
