"""How far the values of the feed's studies have come, and how long a chart must be to go on there.

A chart asked for after a break must hold the break, and before it as many bars as its studies
remember: then what is landed for the break has settled. What earlier workers stored, the lake
tells. Of a symbol of which nothing is known a chart is as long as the feed gives any.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow

from .rows import INDICATORS, TARGETS, micros

Line = tuple[str, str, str]  # symbol, study, parameters

MOST_BARS = 5_000  # of a chart; a study that remembers more stays flagged as settling
MINUTE_US = int(MINUTE.total_seconds() * 1_000_000)
COLUMNS = ["symbol", "name", "parameters"]
# How far back the lake is asked, in steps: nearly all was stored within the hour.
CHART = MOST_BARS * MINUTE
STEPS: tuple[timedelta, ...] = (2 * HOUR, DAY, CHART, 30 * DAY, 365 * DAY)


class Landed:
    """The newest bar with values, epoch µs, of each line; it outlives the connections."""

    def __init__(self) -> None:
        self._newest: dict[Line, int] = {}
        self._asked_about: set[str] = set()

    def newest(self, line: Line) -> int | None:
        """Return the newest bar of *line*; None if none is known."""
        return self._newest.get(line)

    def note(self, line: Line, bar: int) -> None:
        """Take that *line* has come to *bar*."""
        self._newest[line] = max(self._newest.get(line, bar), bar)

    def learn(self, symbols: Iterable[str], stored: Mapping[Line, int]) -> None:
        """Take what the lake tells of *symbols*: of one without a line it has nothing."""
        self._asked_about.update(symbols)
        for line, bar in stored.items():
            self.note(line, bar)

    def bars(self, symbol: str, at: int, least: int) -> int:
        """Return how long a chart of *symbol* must be, asked for at *at* (epoch µs).

        *least* bars are enough where nothing has been missed.
        """
        known = [bar for (name, _, _), bar in self._newest.items() if name == symbol]
        if not known:
            return least if symbol in self._asked_about else MOST_BARS
        missed = max(at - min(known), 0) // MINUTE_US
        return min(least + missed, MOST_BARS)


def newest_values(
    lake: Lakehouse,
    exchange: str,
    symbols: Collection[str],
    studies: Collection[tuple[str, str]],
    *,
    now: datetime,
) -> dict[Line, int]:
    """Return the newest stored bar of each line of *symbols* and *studies* (name, parameters).

    A study is looked for as far back as a chart reaches, and a symbol of which that finds none for
    a year.

    Raises:
        LakeError: if the lake cannot be asked.
    """
    found: dict[Line, int] = {}
    until = now + DAY  # clocks differ
    for step in STEPS:
        if step <= CHART:
            missing = [s for s in symbols if any((s, *study) not in found for study in studies)]
        else:
            seen = {symbol for symbol, _, _ in found}
            missing = [symbol for symbol in symbols if symbol not in seen]
        if not missing:
            break
        window = TimeWindow(now - step, until)
        rows = (
            lake.scan(
                TARGETS[INDICATORS].table,
                exchange=exchange,
                window=window,
                symbols=missing,
                columns=[*COLUMNS, "event_time"],
            )
            .group_by(COLUMNS)
            .agg(pl.col("event_time").max())
            .collect()
            .rows()
        )
        for symbol, name, parameters, time in rows:
            if (name, parameters) in studies:
                found.setdefault((symbol, name, parameters), micros(time))
        until = window.start
    return found
