"""Whether a short look-back tells all that bars need of what came before them.

A tick must not read the day again for the last price and counter before its window. It reads what
happened or was received since an instant shortly before, and takes a symbol's bars from that only
where the stored bar before the window proves that a longer reading would add nothing. Everything
here is a sufficient condition: a symbol for which one fails has to be read from further back.

``build_bars`` asks the past for six things, and each must be in the short reading:

* the last price: the stored bar's own observation is in it, the *anchor* of what follows;
* the counter's level: it is the anchor's stored level, an observation since has shown it, and none
  has fallen since, so that no jump is revoked that older rows would be needed to judge;
* whether the counter's day began: the anchor is of the window's own day;
* the coverage run of that level: runs follow from coverage alone, which is read in full;
* the spread that still holds: a state since then is in it, or the stored bar had none;
* the line of two sessions: only the anchor's was alive then, any other begins after the anchor.

What came meanwhile may also change bars that are stored. Not of a symbol whose rows from before the
window were all received before anything new, and before another session, and whose counter shows no
fall: neither in the rows nor, as far as one may still be judged otherwise, in the bars.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.levels import SPIKE
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import (
    RECEIVED,
    Kind,
    counter_time,
    observes_counter,
    observes_price,
)
from lakehouse_pipeline.market.volume import ALL_SESSION, GAUGES, LARGEST, CounterKind
from lakehouse_pipeline.market.windows import DAY, SECOND, TimeWindow, floor

_received = pl.col("received_at")
_COUNTER_DAY = counter_time().dt.date()


def unsettled(
    quotes: pl.DataFrame,
    bars: pl.DataFrame,
    coverage: pl.DataFrame,
    window: TimeWindow,
    since: datetime,
    *,
    came: datetime,
    kinds: Mapping[str, CounterKind] = ALL_SESSION,
) -> list[str]:
    """Return the symbols of which a short reading does not prove all, sorted.

    Their bars of *window* may need quotes from before *since*, or those of the day before it may be
    otherwise now than they were built.

    Args:
        quotes: all that happened or were received at *since* or later, in QUOTES schema.
        bars: the one-second bars from *since* to the window's start, built from all quotes there
            were; in BARS schema.
        coverage: as ``build_bars`` is given it.
        window: within one UTC day, of whole seconds.
        since: at that day's midnight or later, and before the window.
        came: when the first quote or mark that *bars* were built without was received; not before
            the window, in which all happened that is new.
        kinds: as ``build_bars`` is given them.
    """
    assert floor(window.start, DAY) <= since < window.start
    line = select_line(quotes, coverage)
    happened = pl.col("event_time")
    beyond = line.filter(happened >= window.start)
    lives = _lives(coverage, since)
    asked = _asked(beyond, lives, window)
    anchors = _anchors(line, bars, since)
    told = (
        asked.join(anchors, on="symbol", how="left")
        .join(beyond.group_by("symbol").agg(next_received=_received.min()), on="symbol", how="left")
        .join(_counters(line, anchors, since, kinds), on="symbol", how="left")
        .join(_states(line, window, since), on="symbol", how="left")
        .join(_sessions(quotes, anchors, lives), on="symbol", how="left")
        .join(_kept(quotes, anchors, window), on="symbol", how="left")
        .join(_fallen(bars), on="symbol", how="left")
    )
    level, spread = pl.col("counter_end"), pl.col("spread")
    is_gauge = pl.col("symbol").is_in(_gauges(kinds))
    settled = (
        (pl.col("anchored_at") < pl.col("next_received"))
        & (pl.col("day") == window.start.date())
        & pl.when(pl.col("shows").fill_null(0) == 0)
        .then(level.is_null())
        .otherwise(
            ~pl.col("falls")
            & (level == pl.col("level"))
            & (is_gauge | (pl.col("confirmed") > SPIKE))
        )
        & ~pl.col("fell").fill_null(value=False)
        & (pl.col("last_kept") < pl.min_horizontal(pl.lit(came), "other_came"))
        & (pl.col("states").fill_null(0).cast(pl.Boolean) | spread.is_null())
        & pl.col("alone")
    )
    return told.filter(~settled.fill_null(value=False))["symbol"].sort().to_list()


def _asked(beyond: pl.DataFrame, lives: pl.DataFrame, window: TimeWindow) -> pl.DataFrame:
    """Return the symbols with bars in *window*, or of which something may change stored bars.

    That is what shows the day's counter, and two sessions of which either may be the line.
    """
    traded = observes_price() & (pl.col("event_time") < window.end)
    counted = (pl.col("kind") != Kind.QUOTE) & _COUNTER_DAY.eq(window.start.date())
    together = (
        lives.explode("symbol")
        .drop_nulls("symbol")
        .sort("symbol", "begun", "over")
        .filter(pl.col("begun") <= pl.col("over").cum_max().shift().over("symbol"))
        .select("symbol")
    )
    return pl.concat([beyond.filter(traded | counted).select("symbol"), together]).unique()


def _anchors(line: pl.DataFrame, bars: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Return each symbol's last stored bar with the row that closed it, if that is in *line*."""
    last = (
        bars.filter(pl.col("open_time") >= since + SECOND)
        .sort("symbol", "open_time")
        .group_by("symbol", maintain_order=True)
        .last()
        .select("symbol", "open_time", "counter_end", "spread")
    )
    return (
        line.filter(observes_price())
        .join(last, on="symbol", maintain_order="left")
        .filter(
            pl.col("event_time") >= pl.col("open_time"),
            pl.col("event_time") < pl.col("open_time") + SECOND,
        )
        .group_by("symbol", maintain_order=True)
        .last()
        .filter(_received >= since)
        .select(
            *("symbol", "counter_end", "spread", "session_id"),
            anchored_at=_received,
            day=_COUNTER_DAY,
        )
    )


def _counters(
    line: pl.DataFrame,
    anchors: pl.DataFrame,
    since: datetime,
    kinds: Mapping[str, CounterKind],
) -> pl.DataFrame:
    """Return how often each symbol showed its counter, whether that fell, its level at the anchor.

    A counter that is no sum has no high-water mark, so that it may fall.
    """
    value = pl.col("cumulative_volume")
    shown = (
        line.filter(observes_counter(), value.is_between(0, LARGEST))
        .sort(RECEIVED)
        .join(anchors.select("symbol", "anchored_at", "day"), on="symbol", maintain_order="left")
    )
    gauges = _gauges(kinds)
    fell = (value.diff() < 0).over("symbol", _COUNTER_DAY) & ~pl.col("symbol").is_in(gauges)
    before = (_received >= since) & (_received <= pl.col("anchored_at"))
    return (
        shown.with_columns(fell=fell, own=before & (pl.col("day") == _COUNTER_DAY))
        .group_by("symbol", maintain_order=True)
        .agg(
            shows=pl.len(),
            falls=pl.col("fell").any(),
            level=value.filter("own").last(),
            confirmed=(pl.col("own") & observes_price()).sum(),
        )
    )


def _gauges(kinds: Mapping[str, CounterKind]) -> list[str]:
    return [symbol for symbol, kind in kinds.items() if kind in GAUGES]


def _fallen(bars: pl.DataFrame) -> pl.DataFrame:
    """Return whether the counter of each symbol fell, or was taken back, in its stored *bars*."""
    fell = (pl.col("flags") & Flag.COUNTER_FELL.value) > 0
    return bars.group_by("symbol").agg(fell=fell.any())


def _kept(quotes: pl.DataFrame, anchors: pl.DataFrame, window: TimeWindow) -> pl.DataFrame:
    """Return when each symbol's last row from before *window* was received, its first of others."""
    is_before = pl.col("event_time") < window.start
    is_other = pl.col("session_id") != pl.col("own")
    return (
        quotes.join(anchors.select("symbol", own="session_id"), on="symbol")
        .group_by("symbol")
        .agg(
            last_kept=_received.filter(is_before).max(),
            other_came=_received.filter(is_other).min(),
        )
    )


def _states(line: pl.DataFrame, window: TimeWindow, since: datetime) -> pl.DataFrame:
    """Return how many states of bid and ask each symbol received since then, before the window."""
    known = (pl.col("ask") - pl.col("bid")).is_not_nan().fill_null(value=False)
    received = _received.is_between(since, window.start, closed="left")
    return line.filter(known, received).group_by("symbol").agg(states=pl.len())


def _sessions(quotes: pl.DataFrame, anchors: pl.DataFrame, lives: pl.DataFrame) -> pl.DataFrame:
    """Return for each symbol whether only the anchor's session can have been its line so far.

    A session is somebody's where a mark says so, or where no mark says whose it is. One with rows
    and without a mark yet may have had rows before.
    """
    named = lives.explode("symbol").drop_nulls("symbol")
    nameless = lives.filter(pl.col("symbol").list.len() == 0).drop("symbol")
    everyone = nameless.join(anchors.select("symbol"), how="cross").select(named.columns)
    unmarked = (
        quotes.select("session_id", "symbol")
        .unique()
        .join(named, on=["session_id", "symbol"], how="anti")
        .select("symbol", unmarked=pl.lit(value=True))
        .unique()
    )
    begun_before = (
        pl.concat([named, everyone])
        .join(anchors.select("symbol", "anchored_at", own="session_id"), on="symbol")
        .filter(pl.col("begun") <= pl.col("anchored_at"))
        .group_by("symbol")
        .agg(alone=(pl.col("session_id") == pl.col("own")).all())
    )
    return begun_before.join(unmarked, on="symbol", how="left").select(
        "symbol", alone=pl.col("alone") & pl.col("unmarked").is_null()
    )


def _lives(coverage: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Return when each session lived that did at *since* or later, and its symbols, as marked."""
    return (
        coverage.group_by("session_id")
        .agg(
            begun=pl.col("start").min(),
            over=pl.col("end").max(),
            symbol=pl.col("symbol").filter(pl.col("kind") == Mark.SUBSCRIBED).unique(),
        )
        .filter(pl.col("over") >= since - timedelta(seconds=1))
    )
