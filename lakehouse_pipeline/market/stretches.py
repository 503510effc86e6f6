"""Stretches: the bars of one symbol between two breaks, and how long nothing had been missed.

A break is a minute in which something was missed and that no official bar has filled.
Breaks are found on stored bars, whose flags say which are filled, and hold for the bars of any
longer step. What is computed within a stretch belongs to ``indicators``.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from . import schemas
from .arrays import Ints, in_order, microseconds, text_changes
from .causes import UNSEEN
from .quality import Flag
from .rollup import roll_up
from .windows import MINUTE

STRETCH = "stretch"
SEEN_SINCE = "seen_since"
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
    ordered = in_order(bars, "symbol", "open_time")
    return _assign(ordered, _find_breaks(ordered, gaps), step, to or step)


def as_one_stretch(
    bars: pl.DataFrame, _gaps: pl.DataFrame, step: timedelta = MINUTE, to: timedelta | None = None
) -> pl.DataFrame:
    """Return the same with one stretch a symbol, in which nothing is ever missed."""
    ordered = in_order(bars, "symbol", "open_time")
    return _assign(ordered, pl.DataFrame(schema=BREAKS), step, to or step)


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
    firsts = bars.select("symbol", "open_time")[text_changes(bars["symbol"])]
    unknown = firsts.select("symbol", start=pl.from_epoch(pl.lit(0)), end="open_time")
    return pl.concat([each.cast(BREAKS) for each in (unknown, missed)])


def _assign(
    bars: pl.DataFrame, breaks: pl.DataFrame, step: timedelta, to: timedelta
) -> pl.DataFrame:
    """Return *bars* rolled up to *to*, with their place between *breaks*."""
    rolled = bars if to == step else in_order(roll_up(bars, to), "symbol", "open_time")
    of_symbol = breaks.sort("symbol", "start").partition_by("symbol", as_dict=True)
    nothing = pl.DataFrame(schema=BREAKS)
    opens = microseconds(rolled["open_time"])
    stretch, seen_since = np.zeros_like(opens), np.zeros_like(opens)
    for begin, end in pairwise([*text_changes(rolled["symbol"]), rolled.height]):
        known = of_symbol.get((rolled["symbol"][int(begin)],), nothing)
        starts, at = microseconds(known["start"]), opens[begin:end]
        # The first of a symbol's breaks is what was before its first bar.
        stretch[begin:end] = np.maximum(_passed(starts, at) - 1, 0)
        # What began to be missed as the bar ended was not missed in it.
        missed = _passed(starts, at + (to // timedelta(microseconds=1) - 1))
        ends = np.maximum.accumulate(microseconds(known["end"]))
        seen_since[begin:end] = np.append(0, ends)[missed]
    # In one piece: a study takes columns out of a frame of many for the price of a copy of it.
    return rolled.rechunk().with_columns(
        pl.Series(STRETCH, stretch), pl.Series(SEEN_SINCE, seen_since).cast(schemas.UTC_TIME)
    )


def _passed(starts: Ints, instants: Ints) -> Ints:
    """Return how many of *starts* have passed by each of *instants*; both are sorted."""
    at = np.searchsorted(instants, starts)
    return np.repeat(np.arange(starts.size + 1), np.diff(at, prepend=0, append=instants.size))
