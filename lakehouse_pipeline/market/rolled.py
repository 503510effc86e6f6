"""Bars of a longer step as a reader has them: what they hold of their whole interval.

``bars.roll_up`` knows the bars that there are. That others are missing, and that an interval has
not ended yet, show here. Nothing of it is stored.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from .arrays import SECOND_US
from .bars import State, with_coverage
from .quality import Flag

OPEN_TIME = pl.col("open_time")
FLAGS = pl.col("flags")
MINUTE_US = 60 * SECOND_US  # official bars are minutes


def judged(
    rolled: pl.DataFrame,
    stored: pl.DataFrame,
    coverage: pl.DataFrame,
    *,
    step: timedelta,
    closed: datetime,
) -> pl.DataFrame:
    """Return *rolled* with state, covered seconds and flags of the whole of each interval.

    An interval that ends after *closed* is FORMING. PARTIAL and FILLED mean what they mean of a
    minute: it was not seen all along, and official minutes hold all that was not seen, up to
    *closed*. So one that is PARTIAL and not FILLED lacks something.

    Args:
        rolled: bars of *step* by symbol and time, and any other columns.
        stored: the bars they were rolled up from.
        coverage: as for ``with_coverage``.
        step: of *rolled*.
        closed: up to when *stored* was built.
    """
    ends = OPEN_TIME + step
    filled = (
        stored.filter(FLAGS & Flag.FILLED.value > 0)
        .group_by("symbol", OPEN_TIME.dt.truncate(step))
        .agg(filled=(MINUTE_US - _microseconds("covered_seconds")).sum())
    )
    due = pl.min_horizontal(ends, pl.lit(closed)) - OPEN_TIME
    known = _microseconds("covered_seconds") + pl.col("filled").fill_null(0)
    is_whole = known >= due.dt.total_microseconds()
    state = pl.when(ends > closed).then(pl.lit(State.FORMING.value)).otherwise("state")
    flags = pl.when(is_whole).then(FLAGS).otherwise(FLAGS & ~Flag.FILLED.value)
    return (
        with_coverage(rolled, coverage, step)
        .join(filled, on=["symbol", "open_time"], how="left", maintain_order="left")
        .with_columns(state.alias("state"), flags.alias("flags"))
        .drop("filled")
    )


def _microseconds(seconds: str) -> pl.Expr:
    return (pl.col(seconds) * SECOND_US).round().cast(pl.Int64)
