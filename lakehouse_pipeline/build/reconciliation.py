"""``market.reconciliation``, the loss budget, from bars, history, gaps and what was fetched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.merge import merge
from lakehouse_pipeline.market.reconcile import Agreement, reconcile
from lakehouse_pipeline.market.repair import Status
from lakehouse_pipeline.market.windows import DAY, TimeWindow
from lakehouse_pipeline.settings import HistorySettings

from .bars import BARS_1M, HISTORY_1M
from .freshness import note
from .gaps import GAPS
from .inputs import FETCHED, read_coverage
from .proof import Proof
from .result import BuildResult, write_slice

RECONCILIATION = "market.reconciliation"
REACH = HistorySettings().reach
SHOWN = [
    *("symbol", "start", "end", "status", "reason", "seconds_lost", "missed_volume"),
    *("minutes_compared", "close_mismatches", "volume_residual", "worst"),
]


def build_reconciliation(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    watermark: datetime,
    reach: timedelta,
    symbols: Sequence[str] | None = None,
) -> BuildResult:
    """Rebuild the loss budget of *day* as far as *watermark* lets it be judged.

    *reach* is how far back the feed is sure to give minutes. Bars are merged with history once
    more, which changes nothing where a tick has done it: the verdict need not wait for one.
    """
    names = tuple(symbols) if symbols is not None else None
    window = TimeWindow.of_day(day)
    # Whoever asked about the day did so before its last minute went out of reach, or never.
    answered = TimeWindow(window.start, window.end + 2 * reach + DAY)

    def compute() -> pl.DataFrame:
        bars, history, gaps = (
            lake.scan(table, exchange=exchange, window=window, symbols=names).collect()
            for table in (BARS_1M, HISTORY_1M, GAPS)
        )
        fetches = lake.scan(FETCHED, exchange=exchange, window=answered).collect()
        coverage = read_coverage(lake, exchange, window)
        merged = merge(bars, history, coverage, watermark)
        rows = reconcile(merged, history, gaps, fetches, coverage, window, watermark, reach=reach)
        return rows if names is None else rows.filter(pl.col("symbol").is_in(names))

    progress = note(lake, RECONCILIATION, exchange, window, watermark=watermark, symbols=symbols)
    part = Slice(exchange, window, names)
    rows, result = write_slice(lake, RECONCILIATION, part, compute, progress=progress)
    days = rows.filter(pl.col("scope") == "day")
    facts = {
        f"{name}_seconds": round(float(days[f"seconds_{name}"].sum()), 3)
        for name in ("observed", "filled", "lost")
    }
    return BuildResult(result.table, result.slice, result.rows, result.commit, facts)


def no_open_gaps(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Every gap of *window* that history can still fill is filled."""
    rows = lake.scan(RECONCILIATION, exchange=exchange, window=window).collect()
    gaps = rows.filter(pl.col("scope") == "gap")
    return Proof(gaps.height, _shown(gaps.filter(pl.col("status") == Status.OPEN)))


def reconciliation_is_within_tolerance(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """Every symbol's streamed minutes of *window* agree with the official ones."""
    rows = lake.scan(RECONCILIATION, exchange=exchange, window=window).collect()
    days = rows.filter(pl.col("scope") == "day")
    return Proof(days.height, _shown(days.filter(pl.col("status") == Agreement.DIFFERS)))


def gaps_hold_what_was_missed(lake: Lakehouse, exchange: str, window: TimeWindow) -> Proof:
    """History put into every gap of *window* the volume that the counter missed there.

    The largest residual is first. Open gaps are left out: they may yet be filled.
    """
    rows = lake.scan(RECONCILIATION, exchange=exchange, window=window).collect()
    gaps = rows.filter(pl.col("scope") == "gap", pl.col("status") != Status.OPEN)
    beyond = gaps.filter(pl.col("worst").is_not_null())
    by_size = beyond.sort(pl.col("volume_residual").abs(), descending=True)
    return Proof(gaps.height, by_size.select(SHOWN))


def _shown(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(SHOWN).sort("symbol", "start")
