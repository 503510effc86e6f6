"""``market.indicators_1m`` from ``market.bars_1m`` and the gaps between them.

Beside what is computed stands what TradingView's own studies said, where a token let them stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl

from lakehouse_pipeline.errors import SettingsError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.indicators import STUDIES, Study, compute, with_stretches
from lakehouse_pipeline.market.ingested import TRADINGVIEW, deviations, final_values
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor

from .bars import BARS_1M
from .freshness import note
from .gaps import GAPS
from .result import BuildResult, write_slice

INDICATORS = "market.indicators_1m"
RAW_INDICATORS = "raw.indicators"
SOURCES = (BARS_1M, GAPS, RAW_INDICATORS)

# Wilder's averages remember about 480 bars to the last digit; two days hold that many even of a
# symbol that trades in every fifth minute. A fixed reach keeps a day's values a function of data.
WARM_UP = timedelta(days=2)


def studies_of(chosen: Mapping[str, Mapping[str, int | float]]) -> list[Study]:
    """Return the studies that settings name with their parameters.

    Raises:
        SettingsError: if a name or parameter is unknown.
    """
    studies = []
    for name, parameters in chosen.items():
        if name not in STUDIES:
            raise SettingsError(
                f"Indicator {name!r} is not known.", mend=f"Known: {', '.join(sorted(STUDIES))}."
            )
        try:
            studies.append(STUDIES[name](**parameters))
        except TypeError as error:
            raise SettingsError(
                f"Indicator {name} does not take these parameters: {', '.join(parameters)}.",
                mend="Mend the section 'indicators'.",
            ) from error
    return studies


def build_indicators(
    lake: Lakehouse,
    exchange: str,
    day: date,
    studies: Sequence[Study],
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
) -> BuildResult | None:
    """Rebuild the indicators of *day* up to *watermark*; None if no minute of it is closed."""
    closed = _closed_part(TimeWindow.of_day(day), watermark)
    return _build(lake, exchange, closed, studies, symbols=symbols) if closed else None


def tick_indicators(
    lake: Lakehouse, exchange: str, studies: Sequence[Study], *, watermark: datetime
) -> list[BuildResult]:
    """Build the indicators from the first minute closed or changed since the last tick.

    What follows a changed bar changes with it, so it is all rebuilt.
    """
    seen = {source: lake.head(source) for source in SOURCES}
    window = _unbuilt(lake, exchange, closed=floor(watermark, MINUTE))
    if window is None:
        return []
    parts = [window.intersect(TimeWindow.of_day(day)) for day in window.days()]
    results = [_build(lake, exchange, part, studies) for part in parts if part is not None]
    # Set after the rows: a crash in between makes the next tick repeat these minutes.
    progress = {f"built_from.{source}.{exchange}": head for source, head in seen.items()}
    progress[f"built_to.{exchange}"] = int(window.end.timestamp())
    lake.append(INDICATORS, schemas.INDICATORS.to_frame(), progress=progress)
    return results


def worst_deviations(lake: Lakehouse, exchange: str, window: TimeWindow) -> pl.DataFrame:
    """Return how far computed and ingested values of *window* are apart, the worst first."""
    return deviations(lake.scan(INDICATORS, exchange=exchange, window=window).collect())


def _build(
    lake: Lakehouse,
    exchange: str,
    part: TimeWindow,
    studies: Sequence[Study],
    *,
    symbols: Sequence[str] | None = None,
) -> BuildResult:
    """Rebuild *part* of one day, from the same reach before its midnight whatever part it is."""
    names = tuple(symbols) if symbols is not None else None
    wide = TimeWindow(floor(part.start, DAY) - WARM_UP, part.end)
    inside = pl.col("open_time").is_between(part.start, part.end, closed="left")

    def read() -> pl.DataFrame:
        bars, gaps, raw = (
            lake.scan(table, exchange=exchange, window=wide, symbols=names).collect()
            for table in SOURCES
        )
        computed = compute(with_stretches(bars, gaps), studies)
        return pl.concat([computed.filter(inside), final_values(raw, studies).filter(inside)])

    # The part is closed: that it spans its day says that the watermark has passed it.
    progress = note(lake, INDICATORS, exchange, part, watermark=part.end, symbols=symbols)
    frame, result = write_slice(
        lake, INDICATORS, Slice(exchange, part, names), read, progress=progress
    )
    facts = {"ingested": frame.filter(source=TRADINGVIEW).height}
    return replace(result, facts=facts)


def _closed_part(window: TimeWindow, watermark: datetime) -> TimeWindow | None:
    end = min(window.end, floor(watermark, MINUTE))
    return TimeWindow(window.start, end) if window.start < end else None


def _unbuilt(lake: Lakehouse, exchange: str, *, closed: datetime) -> TimeWindow | None:
    """Return the time up to *closed* for which the indicators are older than their sources.

    The first tick starts at its UTC midnight; days before yesterday are left to whoever rebuilds
    them.
    """
    built_to = lake.progress(INDICATORS, f"built_to.{exchange}")
    if built_to is None:
        return _closed_part(TimeWindow.of_day(closed.date()), closed)
    reach = floor(closed, DAY) - DAY
    starts = [datetime.fromtimestamp(built_to, tz=UTC)]
    for source in SOURCES:
        seen = lake.progress(INDICATORS, f"built_from.{source}.{exchange}") or 0
        starts += [
            max(floor(file.times[0], MINUTE), reach)
            for file in lake.touched_since(source, seen, exchange)
            if file.times is not None and file.times[1] >= reach
        ]
    start = min(starts)
    return TimeWindow(start, closed) if start < closed else None
