"""Bars for every interval, filled where there is none, and saying so.

Stored bars are sparse; this view is made on request and never stored.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

import polars as pl

from lakehouse_pipeline.market.causes import UNSEEN
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.schemas import BARS
from lakehouse_pipeline.market.windows import TimeWindow


class FillKind(StrEnum):
    """Why a dense view filled an interval."""

    QUIET = "quiet"  # nothing was traded: we saw it, or history says so
    GAP = "gap"  # not seen


def dense(
    bars: pl.DataFrame, gaps: pl.DataFrame, window: TimeWindow, step: timedelta
) -> pl.DataFrame:
    """Return one row for every interval of *window* and symbol, and why it was filled.

    BARS schema and ``fill_kind``: null for a bar, ``quiet`` where nothing was traded (the previous
    close repeated, volume zero, flag CARRIED), ``gap`` where we were blind: no prices, no volume.
    *bars* are of *step*, by symbol and time; of *gaps* only those count in which we were blind.
    """
    filled = _filled(bars, gaps, window, step)
    return _carried(filled, where=pl.col("fill_kind") == FillKind.QUIET)


def dense_over_gaps(
    bars: pl.DataFrame, gaps: pl.DataFrame, window: TimeWindow, step: timedelta
) -> pl.DataFrame:
    """Return the same as ``dense`` with the previous close carried through gaps, volume null."""
    filled = _filled(bars, gaps, window, step)
    return _carried(filled, where=pl.col("fill_kind").is_not_null())


def _filled(
    bars: pl.DataFrame, gaps: pl.DataFrame, window: TimeWindow, step: timedelta
) -> pl.DataFrame:
    """Return every interval with its bar or its ``fill_kind``, and the price to ``carry``."""
    names = pl.concat([bars.select("exchange", "symbol"), gaps.select("exchange", "symbol")])
    opens = pl.datetime_range(window.start, window.end, step, closed="left", eager=True)
    grid = (
        names.unique()
        .sort("symbol")
        .join(opens.cast(BARS["open_time"]).alias("open_time").to_frame(), how="cross")
    )
    blind = gaps.filter(pl.col("cause").is_in(sorted(UNSEEN))).sort("symbol", "start")
    blind = blind.select("symbol", "start", pl.col("end").cum_max().over("symbol"))
    found = grid.join(bars, on=["exchange", "symbol", "open_time"], how="left")
    found = found.with_columns(interval_end=pl.col("open_time") + step).join_asof(
        blind,
        left_on="interval_end",
        right_on="start",
        by="symbol",
        allow_exact_matches=False,
        check_sortedness=False,  # sorted within each symbol, as the grid and the sort above have it
    )
    in_gap = (pl.col("end") > pl.col("open_time")).fill_null(value=False)
    fill_kind = (
        pl.when(pl.col("close").is_not_null())
        .then(None)
        .when(in_gap)
        .then(pl.lit(FillKind.GAP.value))
        .otherwise(pl.lit(FillKind.QUIET.value))
    )
    # After a gap the next bar's prev_close knows the restored price; the close before does not.
    stretch = (pl.col("fill_kind") == FillKind.GAP).fill_null(value=False).cum_sum()
    carry = pl.coalesce(
        pl.col("close").forward_fill().over("symbol", "stretch"),
        pl.col("prev_close").backward_fill().over("symbol", "stretch"),
        pl.col("close").forward_fill().over("symbol"),
    )
    return (
        found.with_columns(fill_kind=fill_kind)
        .with_columns(stretch=stretch.over("symbol"))
        .with_columns(carry=carry)
        .drop("interval_end", "start", "end", "stretch")
    )


def _carried(filled: pl.DataFrame, *, where: pl.Expr) -> pl.DataFrame:
    """Return *filled* with the carried price where asked and one is known."""
    carried = where & pl.col("carry").is_not_null()
    carried = carried.fill_null(value=False)
    nothing = where & (pl.col("fill_kind") == FillKind.QUIET)
    counts = pl.col("^.*_updates$", "observed_seconds")
    return filled.with_columns(
        *(
            pl.when(carried).then("carry").otherwise(price).alias(price)
            for price in ("open", "high", "low", "close", "prev_close")
        ),
        pl.when(nothing).then(0.0).otherwise(pl.col("volume")).alias("volume"),
        counts.fill_null(0),
        pl.when(carried)
        .then(pl.lit(Flag.CARRIED.value, BARS["flags"]))
        .otherwise(pl.col("flags").fill_null(0))
        .alias("flags"),
    ).drop("carry")
