"""Stretches: the bars of one symbol between two breaks, and how long nothing had been missed.

A break is a minute in which something was missed and that no official bar has filled.
Breaks are found on stored bars, whose flags say which are filled, and hold for the bars of any
longer step. What is computed within a stretch belongs to ``indicators``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from . import schemas
from .bars import roll_up
from .causes import UNSEEN
from .quality import Flag
from .windows import MINUTE

STRETCH = "stretch"
SEEN_SINCE = "seen_since"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BREAKS = pl.Schema({"symbol": pl.String(), "start": schemas.UTC_TIME, "end": schemas.UTC_TIME})


def with_stretches(
    bars: pl.DataFrame, gaps: pl.DataFrame, step: timedelta = MINUTE, to: timedelta | None = None
) -> pl.DataFrame:
    """Return stored *bars* of *step*, sorted, with the stretch each belongs to.

    A new stretch starts at the first bar that opens after something began to be missed: a bar
    during which a gap began still belongs to the stretch before it. ``seen_since`` is the instant
    from which on nothing was missed up to the bar's end, at the earliest the symbol's first bar.
    With *to* the bars are rolled up to that step.
    """
    return _assign(bars, _find_breaks(bars, gaps), step, to or step)


def as_one_stretch(
    bars: pl.DataFrame, _gaps: pl.DataFrame, step: timedelta = MINUTE, to: timedelta | None = None
) -> pl.DataFrame:
    """Return the same with one stretch a symbol, in which nothing is ever missed."""
    return _assign(bars, pl.DataFrame(schema=BREAKS), step, to or step)


def _find_breaks(bars: pl.DataFrame, gaps: pl.DataFrame) -> pl.DataFrame:
    """Return what was missed of each unfilled minute; of what is before the first bar, all."""
    opens = pl.datetime_ranges(pl.col("start").dt.truncate("1m"), "end", MINUTE, closed="left")
    filled = bars.filter(pl.col("flags") & int(Flag.FILLED) > 0).select("symbol", "open_time")
    missed = (
        gaps.filter(pl.col("cause").is_in(sorted(UNSEEN)))
        .select("symbol", "start", "end", open_time=opens)
        .explode("open_time")
        .join(filled, on=["symbol", "open_time"], how="anti")
        .select(
            "symbol",
            start=pl.max_horizontal("start", "open_time"),
            end=pl.min_horizontal("end", pl.col("open_time") + MINUTE),
        )
    )
    unknown = bars.group_by("symbol").agg(start=pl.lit(EPOCH), end=pl.col("open_time").min())
    return pl.concat([each.cast(BREAKS) for each in (unknown, missed)])


def _assign(
    bars: pl.DataFrame, breaks: pl.DataFrame, step: timedelta, to: timedelta
) -> pl.DataFrame:
    """Return *bars* rolled up to *to*, with their place between *breaks*."""
    rolled = bars if to == step else roll_up(bars, to)
    ordered = rolled.sort("symbol", "open_time")
    numbered = breaks.sort("symbol", "start").with_columns(
        pl.int_range(pl.len()).over("symbol").alias(STRETCH),
        pl.col("end").cum_max().over("symbol").alias(SEEN_SINCE),
    )
    opens, closes = ordered.select("symbol", at="open_time"), pl.col("at") + to
    return ordered.with_columns(
        _last_break(opens, numbered, STRETCH).fill_null(0),
        # What began to be missed as the bar ended was not missed in it.
        _last_break(
            opens.with_columns(closes - timedelta(microseconds=1)), numbered, SEEN_SINCE
        ).fill_null(EPOCH),
    )


def _last_break(instants: pl.DataFrame, breaks: pl.DataFrame, column: str) -> pl.Series:
    """Return *column* of the last of *breaks* that began by each instant, null before the first."""
    # The library cannot see that both sides are sorted within each symbol; they are.
    joined = instants.join_asof(
        breaks.select("symbol", "start", column),
        left_on="at",
        right_on="start",
        by="symbol",
        strategy="backward",
        check_sortedness=False,
    )
    return joined[column]
