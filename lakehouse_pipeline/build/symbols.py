"""``market.symbols``: what each symbol is on a day, from quotes and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.progress import Noted, Renewal
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.symbols import describe_symbols
from lakehouse_pipeline.market.windows import TimeWindow

from .freshness import note
from .inputs import Inputs
from .kinds import SYMBOLS
from .result import BuildResult, write_slice

FIRST_LOOK = timedelta(seconds=30)


def build_symbols(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
    inputs: Inputs | None = None,
) -> BuildResult:
    """Rebuild what is said of the symbols on *day*, as far as it was received."""
    names = tuple(symbols) if symbols is not None else None
    window = TimeWindow.of_day(day)

    def compute() -> pl.DataFrame:
        read = inputs or Inputs(lake, exchange, day, symbols=names)
        verdicts, coverage = read.verdicts(), read.coverage(read.wide)
        rows = describe_symbols(read.quotes(), coverage, verdicts, window, watermark)
        return rows if names is None else rows.filter(pl.col("symbol").is_in(names))

    is_running = window.start <= watermark < window.end and names is None
    progress: dict[str, Noted | Renewal] = (
        {f"judged_to.{exchange}": int(watermark.timestamp())} if is_running else {}
    )
    progress |= note(lake, SYMBOLS, exchange, window, watermark=watermark, symbols=symbols)
    rows, result = write_slice(
        lake, SYMBOLS, Slice(exchange, window, names), compute, progress=progress
    )
    kinds = rows["counter_kind"].value_counts().sort("counter_kind").iter_rows()
    facts = {f"{kind}_counters": count for kind, count in kinds}
    return BuildResult(result.table, result.slice, result.rows, result.commit, facts)


def refresh_symbols(lake: Lakehouse, exchange: str, *, watermark: datetime) -> BuildResult | None:
    """Judge the running day anew if it has doubled since, or has symbols of which nothing is said.

    So a tick pays for it a dozen times a day.
    """
    day = watermark.date()
    rows = lake.scan(SYMBOLS, exchange=exchange, window=TimeWindow.of_day(day)).collect()
    judged_to = lake.progress(SYMBOLS, f"judged_to.{exchange}")
    if rows.height and judged_to is not None:
        judged = datetime.fromtimestamp(judged_to, tz=UTC)
        begun = rows["valid_from"].unique().to_list()
        if all(watermark - at < 2 * max(judged - at, FIRST_LOOK) for at in begun):
            return None
    return build_symbols(lake, exchange, day, watermark=watermark)
