"""The seconds that follow on stored ones, without reading the day again.

What came before them is looked for a few minutes back, then a quarter of an hour. A symbol of which
that does not prove all (``market.lookback``) is read as a build of the whole day reads it, and what
is stored of it is compared: a spike taken back, or two sessions of which the other one counts, also
change seconds that were built long before. So a symbol's stored day is either proven or computed
again, and the rows are those of a build of the day; only a tick's cost depends on which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Selection, Slice
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.lookback import unsettled
from lakehouse_pipeline.market.quality import disagreements
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor

from .inputs import COVERAGE, read_coverage, reading_of
from .kinds import QUOTES, Kinds

BARS_1S = "market.bars_1s"
REACHES = (2 * MINUTE, 15 * MINUTE)


@dataclass(frozen=True, slots=True)
class Followed:
    """The bars of a part, and which stored ones before it are no longer what they were."""

    bars: pl.DataFrame
    outdated: Slice | None


class FollowOn:
    """The one-second bars of *part*, which lies within a day, the same as of all its quotes.

    What was computed is given again as long as there are no newer quotes or marks.

    Args:
        lake: with stored seconds up to the part, as far as they were built.
        exchange: whose.
        part: of whole seconds.
        watermark: event time is complete before it.
        kinds: of the day's counters.
        came: when the first of what is new since the stored seconds were built was received.
    """

    def __init__(
        self,
        lake: Lakehouse,
        exchange: str,
        part: TimeWindow,
        *,
        watermark: datetime,
        kinds: Kinds,
        came: datetime,
    ) -> None:
        self._lake, self._exchange, self._part = lake, exchange, part
        self._watermark, self._kinds, self._came = watermark, kinds, came
        self._midnight = floor(part.start, DAY)
        self._wide = reading_of(part.start.date())
        self._known: tuple[tuple[int, int], Followed] | None = None

    def bars(self) -> pl.DataFrame:
        """Return the bars of the part."""
        return self._followed().bars

    def outdated(self) -> Slice | None:
        """Return where bars of the day before the part have to be built again."""
        return self._followed().outdated

    def _followed(self) -> Followed:
        heads = self._lake.head(QUOTES), self._lake.head(COVERAGE)
        if self._known is None or self._known[0] != heads:
            self._known = heads, self._compute()
        return self._known[1]

    def _compute(self) -> Followed:
        part, lake, exchange = self._part, self._lake, self._exchange
        coverage = read_coverage(lake, exchange, self._wide)
        built: list[pl.DataFrame] = []
        left: list[str] | None = None  # all
        starts = [part.start - reach for reach in REACHES if part.start - reach >= self._midnight]
        if starts and not self._is_current():
            starts = []
        for since in starts:
            quotes = self._read_since(since, left)
            before = TimeWindow(since, part.start)
            bars = lake.scan(BARS_1S, exchange=exchange, window=before, symbols=left).collect()
            left = unsettled(
                quotes, bars, coverage, part, since, came=self._came, kinds=self._kinds
            )
            settled = quotes.filter(~pl.col("symbol").is_in(left))
            built.append(self._build(settled, coverage, part))
            if not left:
                return Followed(built[0] if len(built) == 1 else _ordered(built), None)
        quotes = lake.scan(QUOTES, exchange=exchange, window=self._wide, symbols=left).collect()
        day = self._build(quotes, coverage, TimeWindow(self._midnight, part.end))
        is_before = pl.col("open_time") < part.start
        built.append(day.filter(~is_before))
        return Followed(_ordered(built), self._compare(day.filter(is_before), left))

    def _build(
        self, quotes: pl.DataFrame, coverage: pl.DataFrame, window: TimeWindow
    ) -> pl.DataFrame:
        return build_bars_1s(quotes, coverage, window, self._watermark, kinds=self._kinds)

    def _compare(self, bars: pl.DataFrame, symbols: Sequence[str] | None) -> Slice | None:
        """Return from where to where, and for whom, stored seconds are not *bars*."""
        if self._midnight == self._part.start:
            return None
        window = TimeWindow(self._midnight, self._part.start)
        stored = self._lake.scan(
            BARS_1S, exchange=self._exchange, window=window, symbols=symbols
        ).collect()
        differ = disagreements(stored, bars)
        if differ.is_empty():
            return None
        first: datetime = differ["open_time"].min()  # type: ignore[assignment]  # a time column
        names = tuple(differ["symbol"].unique().sort().to_list())
        return Slice(self._exchange, TimeWindow(first, window.end), names)

    def _read_since(self, since: datetime, symbols: list[str] | None) -> pl.DataFrame:
        """Return the quotes that happened or were received at *since* or later."""
        lake, exchange = self._lake, self._exchange
        happened = TimeWindow(since, self._wide.end)
        late = TimeWindow(self._wide.start, since)
        frames = [
            lake.scan(QUOTES, exchange=exchange, window=happened, symbols=symbols),
            lake.scan(
                QUOTES, exchange=exchange, window=late, symbols=symbols, received_since=since
            ),
        ]
        return pl.concat(pl.collect_all(frames))

    def _is_current(self) -> bool:
        """Tell whether the stored seconds of the day are built from all quotes of then."""
        lake, day = self._lake, TimeWindow(self._midnight, self._part.start)
        built_to = lake.progress(BARS_1S, f"built_to.{self._exchange}")
        built_from = lake.progress(BARS_1S, f"built_from.{self._exchange}")
        if built_to is None or built_from is None:
            return False
        if datetime.fromtimestamp(built_to, tz=UTC) < day.end:
            return False
        newer = lake.touched_since(QUOTES, built_from, self._exchange)
        return not any(file.may_hold(Selection(self._exchange, day)) for file in newer)


def _ordered(built: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(built).sort("symbol", "open_time")
