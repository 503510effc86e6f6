"""What is wrong with a row: the flags it carries, and statements that find offenders.

A statement returns the rows that break it, with a column that says how; an empty frame is the
proof. Add statements about stored rows here; what a check does about them belongs to ``defs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import IntFlag

import polars as pl

from lakehouse_pipeline.market.decimals import exact_sum
from lakehouse_pipeline.market.schemas import UTC_TIME
from lakehouse_pipeline.market.windows import SECOND, TimeWindow, floor


class Flag(IntFlag):
    """Bits of the ``flags`` column. Stored: never renumber."""

    FILLED = 1  # prices and volume of what was not seen are the vendor's own
    CARRIED = 2  # no update: the previous close repeated, dense view only
    PARTIAL = 4  # not seen for all of the interval; what is not FILLED either, is missing
    LATE = 8  # an update came after close plus lateness
    CLOCK_SUSPECT = 16  # received long before or after its trade
    DELAYED_FEED = 32  # the feed said it was delayed
    VOLUME_ESTIMATED = 64
    VOLUME_UNKNOWN = 128
    COUNTER_RESET = 256  # the counter started from zero
    COUNTER_FELL = 512  # the counter fell or a jump was taken back; that update booked nothing
    SPANS_GAP = 1024  # an update's delta spans a hole in coverage and was left to the gap
    CROSSED_QUOTE = 2048  # bid above ask
    WARMING = 4096  # an indicator without a value: too few bars since a gap; VWAP: a gap this day
    SETTLING = 8192  # an indicator that still shows where it began: after a gap, or at the start


KEY = ["symbol", "open_time"]
WHY = "broken"  # the column that says how a row breaks a statement
SINCE = "wanted_since"  # when the symbol was wanted again; null before its first pause
NO_PAUSES: Mapping[str, Sequence[TimeWindow]] = {}


def ohlc_violations(bars: pl.DataFrame) -> pl.DataFrame:
    """Return bars whose prices, volume or counts cannot be."""
    low, high = pl.col("low"), pl.col("high")
    counts = pl.col("^.*_updates$")
    return _broken(
        bars,
        {
            "low above open or close": low > pl.min_horizontal("open", "close"),
            "high below open or close": high < pl.max_horizontal("open", "close"),
            "price missing": pl.any_horizontal(
                pl.col("open", "high", "low", "close").is_null()
                | ~pl.col("open", "high", "low", "close").is_finite()
            ),
            "negative volume": pl.col("volume") < 0,
            "volume without a basis": pl.col("volume").is_null()
            & (pl.col("volume_basis") != "unknown"),
            "negative count": pl.any_horizontal(counts < 0),
            "no update": (pl.col("source") == "stream")
            & (pl.sum_horizontal("price_updates", "volume_updates", "time_updates") == 0),
        },
    )


def order_violations(bars: pl.DataFrame) -> pl.DataFrame:
    """Return bars of one symbol that repeat or precede the one before them."""
    step = pl.col("open_time").diff().over("symbol")
    return _broken(
        bars,
        {
            "repeated": pl.struct(KEY).is_duplicated(),
            "out of order": step < timedelta(0),
        },
    )


def window_violations(
    bars: pl.DataFrame, window: TimeWindow, step: timedelta, watermark: datetime
) -> pl.DataFrame:
    """Return bars outside their partition's *window*, off the grid of *step*, or not closed yet."""
    opens = pl.col("open_time")
    return _broken(
        bars,
        {
            "outside the partition": (opens < window.start) | (opens >= window.end),
            "off the grid": opens != opens.dt.truncate(step),
            "not closed yet": opens + step > watermark,
        },
    )


def disagreements(stored: pl.DataFrame, rebuilt: pl.DataFrame) -> pl.DataFrame:
    """Return, by symbol and time, the bars that differ from their rebuild, or are in one only.

    Says which columns differ. Both in BARS schema; a rebuild may know that a bar is final now.
    """
    columns = [name for name in rebuilt.columns if name not in (*KEY, "exchange", "state")]
    both = stored.join(rebuilt, on=KEY, how="full", coalesce=True, suffix="_rebuilt")
    return _broken(
        both,
        {
            "only rebuilt": pl.col("exchange").is_null(),
            "only stored": pl.col("exchange_rebuilt").is_null(),
            **{
                name: pl.col("exchange").is_not_null()
                & pl.col("exchange_rebuilt").is_not_null()
                & pl.col(name).ne_missing(pl.col(f"{name}_rebuilt"))
                for name in columns
            },
        },
    ).sort(KEY)


def unconserved_volume(
    bars: pl.DataFrame, gaps: pl.DataFrame, pauses: Mapping[str, Sequence[TimeWindow]] = NO_PAUSES
) -> pl.DataFrame:
    """Return the symbols for which bars and gaps do not add up to what the counter did.

    *bars* and *gaps* are those of one UTC day. One row a symbol, and stretch between its *pauses*,
    in which nobody wanted it (see ``coverage.paused``): ``counted`` from the lowest level known to
    the highest, ``booked`` in bars, ``missed`` in gaps, ``residual`` what is left. Only a state
    restored while the symbol was seen, or between two sessions' counters, may leave any. A symbol
    whose counter is followed and not summed has no total to compare with.
    """
    followed = bars.filter(pl.col("volume").is_null() & pl.col("counter_start").is_not_null())
    bars = bars.join(followed, on="symbol", how="anti")
    gaps = gaps.join(followed, on="symbol", how="anti")
    of_bars, of_gaps = _since(pauses, "open_time"), _since(pauses, "start")
    levels = pl.concat(
        [
            bars.select("symbol", of_bars, start="counter_start", end="counter_end"),
            gaps.select("symbol", of_gaps, start="counter_before", end="counter_after"),
        ]
    )
    added = pl.concat(
        [
            bars.select("symbol", of_bars, booked="volume", missed=pl.lit(None, pl.Float64)),
            gaps.select("symbol", of_gaps, booked=pl.lit(None, pl.Float64), missed="missed_volume"),
        ]
    )
    known = (
        levels.group_by("symbol", SINCE)
        .agg(pl.col("start").min(), pl.col("end").max())
        .with_columns(counted=pl.col("end") - pl.col("start"))
    )
    sums = added.group_by("symbol", SINCE).agg(exact_sum("booked"), exact_sum("missed"))
    residual = pl.col("counted") - pl.col("booked").fill_null(0) - pl.col("missed").fill_null(0)
    # The levels are decimals too: what is left of their difference below 1e-9 is binary noise.
    return (
        known.join(sums, on=["symbol", SINCE], nulls_equal=True)
        .with_columns(residual=residual.round(9))
        .filter(pl.col("residual") != 0)
        .sort("symbol", SINCE)
    )


def _since(pauses: Mapping[str, Sequence[TimeWindow]], time: str) -> pl.Expr:
    """Return the end of the symbol's last pause before *time*; null before the first."""
    since = pl.lit(None, UTC_TIME)
    for symbol, found in pauses.items():
        for pause in sorted(found):
            is_after = (pl.col("symbol") == symbol) & (pl.col(time) >= floor(pause.end, SECOND))
            since = pl.when(is_after).then(pl.lit(pause.end, UTC_TIME)).otherwise(since)
    return since.alias(SINCE)


def _broken(rows: pl.DataFrame, statements: dict[str, pl.Expr]) -> pl.DataFrame:
    """Return the rows for which any statement is true, naming those in the column ``broken``."""
    named = [
        pl.when(broken.fill_null(value=False)).then(pl.lit(name))
        for name, broken in statements.items()
    ]
    why = pl.concat_str(named, separator=", ", ignore_nulls=True).alias(WHY)
    return rows.with_columns(why).filter(pl.col(WHY) != "")
