"""What a person sees of a whole day: a drawing and a table a partition, for the UI's metadata.

Only days that are built as a whole get one. A tick gets none: its events are 1,440 a day.
"""

from __future__ import annotations

import polars as pl

from lakehouse_pipeline import sketches
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.windows import TimeWindow

from .bars import BARS_1M
from .gaps import GAPS
from .reconciliation import RECONCILIATION

ROWS_SHOWN = 12


def candles_of_day(lake: Lakehouse, exchange: str, day: TimeWindow) -> str | None:
    """Return the day's candles as a markdown image; None if there are no bars."""
    bars = lake.scan(BARS_1M, exchange=exchange, window=day).sort("symbol", "open_time").collect()
    if bars.is_empty():
        return None
    coarse = roll_up(bars, sketches.STEP)
    gaps = lake.scan(GAPS, exchange=exchange, window=day).collect()
    return sketches.markdown(sketches.candles(coarse, gaps, day), f"candles of {exchange}")


def coverage_of_day(lake: Lakehouse, exchange: str, day: TimeWindow) -> str | None:
    """Return what was seen of the day as a markdown image; None if nothing was recorded."""
    bars = lake.scan(BARS_1M, exchange=exchange, window=day, columns=["symbol"])
    symbols = sorted(bars.unique().collect()["symbol"].to_list())
    gaps = lake.scan(GAPS, exchange=exchange, window=day).sort("symbol", "start").collect()
    if not symbols and gaps.is_empty():
        return None
    return sketches.markdown(sketches.coverage(gaps, symbols, day), f"coverage of {exchange}")


def budget_of_day(lake: Lakehouse, exchange: str, day: TimeWindow) -> str | None:
    """Return the day's loss budget as a markdown table, worst symbols first; None if empty."""
    rows = lake.scan(RECONCILIATION, exchange=exchange, window=day).collect()
    days = rows.filter(pl.col("scope") == "day").sort(
        "seconds_lost", descending=True, nulls_last=True
    )
    if days.is_empty():
        return None
    lines = [
        "| symbol | verdict | seen s | filled s | lost s | volume residual |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in days.head(ROWS_SHOWN).iter_rows(named=True):
        residual = row["volume_residual"]
        lines.append(
            f"| {row['symbol']} | {row['status']} | {row['seconds_observed']:.0f} "
            f"| {row['seconds_filled']:.0f} | {row['seconds_lost']:.0f} "
            f"| {'' if residual is None else f'{residual:.6g}'} |"
        )
    if days.height > ROWS_SHOWN:
        lines.append(f"| and {days.height - ROWS_SHOWN} more | | | | | |")
    return "\n".join(lines)
