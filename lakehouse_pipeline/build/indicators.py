"""``market.indicators_1m`` from ``market.bars_1m`` and the gaps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

import polars as pl

from lakehouse_pipeline.errors import SettingsError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.indicators import STUDIES, Study, compute, with_stretches
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow, floor

from .bars import BARS_1M
from .gaps import GAPS
from .result import BuildResult, write_slice

INDICATORS = "market.indicators_1m"

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
    names = tuple(symbols) if symbols is not None else None
    whole = TimeWindow.of_day(day)
    closed = floor(watermark, MINUTE)
    if closed <= whole.start:
        return None
    window = TimeWindow(whole.start, min(whole.end, closed))
    wide = TimeWindow(window.start - WARM_UP, window.end)

    def read() -> pl.DataFrame:
        bars = lake.scan(BARS_1M, exchange=exchange, window=wide, symbols=names).collect()
        gaps = lake.scan(GAPS, exchange=exchange, window=wide, symbols=names).collect()
        values = compute(with_stretches(bars, gaps), studies)
        return values.filter(pl.col("open_time") >= window.start)

    _, result = write_slice(lake, INDICATORS, Slice(exchange, window, names), read)
    return result
