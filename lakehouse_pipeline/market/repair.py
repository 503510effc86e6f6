"""What to ask of chart history, and what became of a gap after the answers.

The feed gives bars back to a certain depth counted from now, so every question is "all since": one
for each symbol, reaching back to the earliest minute it still needs. An answer speaks for whole
minutes, also for those in which it has no bar: there, nothing was traded. What is done with the
bars belongs to ``merge``, how they compare with the streamed ones to ``reconcile``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import polars as pl

from lakehouse_pipeline.market.causes import BLIND
from lakehouse_pipeline.market.schemas import HISTORY, UTC_TIME
from lakehouse_pipeline.market.windows import (
    DAY,
    MINUTE,
    TimeWindow,
    ceil,
    floor,
    intersect,
    subtract,
    union,
)

VALUES = ["open", "high", "low", "close", "volume"]
_SECONDS = ["seconds_filled", "seconds_lost", "seconds_silent"]
# Official minutes before a symbol's first: what RSI remembers, VWAP's session, a chart's first day.
LEAD = DAY


class Ended(StrEnum):
    """Why a fetch brought nothing older."""

    REACHED = "reached"  # as far as was asked
    END = "end"  # nothing older exists
    LIMIT = "limit"  # older bars are refused
    EMPTY = "empty"  # a page brought nothing and no word why
    NOT_ENTITLED = "not_entitled"
    UNKNOWN_SYMBOL = "unknown_symbol"


class Status(StrEnum):
    """What became of a gap."""

    OPEN = "open"  # can still be filled, or is not over yet
    FILLED = "filled"
    PARTLY_FILLED = "partly_filled"  # the rest is beyond reach
    UNFILLABLE = "unfillable"
    NO_TRADING = "no_trading"  # nothing was missed


class Reason(StrEnum):
    """Why a gap, or the rest of it, cannot be filled."""

    NOT_ENTITLED = "not_entitled"
    OUT_OF_REACH = "out_of_reach"
    NO_DATA = "no_data"  # history has nothing there


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: the official minutes of *symbol* from *since* on."""

    symbol: str
    since: datetime


def plan(
    gaps: pl.DataFrame,
    fetches: pl.DataFrame,
    wanted: Mapping[str, Sequence[TimeWindow]],
    watermark: datetime,
    *,
    reach: timedelta,
) -> list[Ask]:
    """Return what to ask, symbols with gaps first, those soonest out of reach before others.

    *gaps* and *fetches* are those of the last *reach* and *wanted* says when each symbol was to be
    recorded. Besides its gaps each symbol needs every finished UTC day it was recorded on, and the
    day before its recording began, so that its indicators are warm from the first minute.
    """
    reachable = _reachable(watermark, reach)
    asked = _windows(_settled(fetches))
    missed: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for symbol, start, end in _blind(gaps).select("symbol", "start", "end").iter_rows():
        missed[symbol].append(TimeWindow(floor(start, MINUTE), ceil(end, MINUTE)))
    days = {
        symbol: union([*_finished_days(windows, reachable), *_leads(windows)])
        for symbol, windows in wanted.items()
    }
    asks = []
    for symbol in missed.keys() | days.keys():
        needs, due = (
            subtract(intersect(windows.get(symbol, []), [reachable]), asked.get(symbol, []))
            for windows in (missed, days)
        )
        if needs or due:
            since = min(window.start for window in (*needs, *due))
            asks.append((not needs, since, symbol))
    return [Ask(symbol, since) for _, since, symbol in sorted(asks)]


def judge(
    gaps: pl.DataFrame,
    history: pl.DataFrame,
    fetches: pl.DataFrame,
    watermark: datetime,
    *,
    reach: timedelta,
) -> pl.DataFrame:
    """Return *gaps* with ``status``, ``reason``, ``seconds_filled`` and ``seconds_lost``.

    Seconds in which the official record says that nothing was traded are filled, unless the
    counter knows better: a gap with volume of which history has no bar at all is lost as a whole.
    ``seconds_silent`` says how many of those filled these are; whether the bars there are hold
    enough volume is for ``reconcile`` to say.
    """
    rows = gaps.with_row_index("gap")
    states = _minute_states(rows, history, fetches, _reachable(watermark, reach))
    told = states.group_by("gap").agg(
        filled=(pl.col("state") == "filled").any(),
        is_open=(pl.col("state") == "open").any(),
        beyond=pl.col("state").is_in([*Reason]).any(),
        refused=(pl.col("state") == Reason.NOT_ENTITLED).any(),
        unreached=(pl.col("state") == Reason.OUT_OF_REACH).any(),
        answered_seconds=pl.col("seconds")
        .filter(pl.col("state").is_in(["filled", "silent"]))
        .sum(),
        silent=pl.col("seconds").filter(pl.col("state") == "silent").sum(),
    )
    joined = rows.join(told, on="gap", how="left", maintain_order="left")
    length = (pl.col("end") - pl.col("start")).dt.total_microseconds() / 1e6
    is_blind = pl.col("filled").is_not_null()
    accounted = pl.col("filled") | (pl.col("missed_volume") == 0).fill_null(value=False)
    status = (
        pl.when(~is_blind)
        .then(pl.lit(Status.NO_TRADING.value))
        .when("is_open")
        .then(pl.lit(Status.OPEN.value))
        .when(accounted & ~pl.col("beyond"))
        .then(pl.lit(Status.FILLED.value))
        .when(pl.col("filled"))
        .then(pl.lit(Status.PARTLY_FILLED.value))
        .otherwise(pl.lit(Status.UNFILLABLE.value))
    )
    reason = (
        pl.when("refused")
        .then(pl.lit(Reason.NOT_ENTITLED.value))
        .when("unreached")
        .then(pl.lit(Reason.OUT_OF_REACH.value))
        .otherwise(pl.lit(Reason.NO_DATA.value))
    )
    stuck = pl.col("status").is_in([Status.PARTLY_FILLED, Status.UNFILLABLE])
    filled = pl.when(is_blind & accounted).then("answered_seconds").otherwise(0.0)
    silent = pl.when(is_blind & accounted).then("silent").otherwise(0.0)
    lost = pl.when(is_blind).then(length - pl.col("seconds_filled")).otherwise(0.0)
    return (
        joined.with_columns(status=status)
        .with_columns(reason=pl.when(stuck).then(reason), seconds_filled=filled.round(6))
        .with_columns(seconds_lost=lost.round(6), seconds_silent=silent.round(6))
        .select(*gaps.columns, "status", "reason", *_SECONDS)
    )


def still_unseen(gaps: pl.DataFrame, history: pl.DataFrame, fetches: pl.DataFrame) -> pl.DataFrame:
    """Return what is left of *gaps* without the minutes in which nothing was traded.

    These are the minutes that ``judge`` calls silent: an answer speaks for them and has no bar, and
    the counter does not know better. What is left keeps the other columns; order is kept.
    """
    rows = gaps.with_row_index("gap")
    minutes, key = gap_minutes(rows), ["symbol", "open_time"]
    filled = minutes.join(history, on=key, how="semi")["gap"].unique()
    silent = answered_minutes(minutes.join(history, on=key, how="anti"), fetches)
    accounted = pl.col("gap").is_in(filled.implode()) | (pl.col("missed_volume") == 0)
    believed = silent.join(rows.filter(accounted), on="gap", how="semi")
    holes = _windows(
        believed.select(symbol="gap", start="open_time", end=pl.col("open_time") + MINUTE)
    )
    cut = [
        (gap, left.start, left.end)
        for gap, start, end in rows.select("gap", "start", "end").iter_rows()
        if gap in holes
        for left in subtract([TimeWindow(start, end)], holes[gap])
    ]
    whole = rows.filter(~pl.col("gap").is_in(list(holes)))
    names = ["gap", "start", "end"]
    left = pl.DataFrame(cut, schema={name: rows.schema[name] for name in names}, orient="row")
    pieces = pl.concat([whole.select(names), left]).sort("gap", "start")
    return pieces.join(rows.drop("start", "end"), on="gap").select(gaps.columns)


def gap_minutes(gaps: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each minute in which a gap of *gaps* made us blind.

    Columns gap (as given), symbol, open_time and the ``seconds`` of the minute it took.
    """
    opens = pl.datetime_ranges(
        pl.col("start").dt.truncate("1m"), pl.col("end"), "1m", closed="left"
    )
    minutes = _blind(gaps).with_columns(opens.cast(pl.List(UTC_TIME)).alias("open_time"))
    overlap = pl.min_horizontal("end", pl.col("open_time") + MINUTE) - pl.max_horizontal(
        "start", "open_time"
    )
    return (
        minutes.explode("open_time", empty_as_null=False)
        .with_columns(seconds=overlap.dt.total_microseconds() / 1e6)
        .select("gap", "symbol", "open_time", "seconds")
    )


def revisions(known: pl.DataFrame, fetched: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of *fetched* that are new, or differ from what is *known* of their minute."""
    key = ["symbol", "open_time"]
    both = fetched.join(known, on=key, how="left", suffix="_known", maintain_order="left")
    differs = pl.any_horizontal(pl.col(n).ne_missing(pl.col(f"{n}_known")) for n in VALUES)
    is_new = pl.col("fetched_at_known").is_null()
    return both.filter(is_new | differs).select(HISTORY.names())


def answered_minutes(minutes: pl.DataFrame, fetches: pl.DataFrame) -> pl.DataFrame:
    """Return those of *minutes* (symbol, open_time) that an answer of *fetches* speaks for."""
    return minutes.filter(_inside(minutes, _windows(_answered(fetches))))


def _finished_days(windows: Sequence[TimeWindow], reachable: TimeWindow) -> Iterator[TimeWindow]:
    for window in intersect(windows, [reachable]):
        yield from (
            day for day in map(TimeWindow.of_day, window.days()) if day.end <= reachable.end
        )


def _leads(windows: Sequence[TimeWindow]) -> Iterator[TimeWindow]:
    for window in windows:
        begins = floor(window.start, MINUTE)
        yield TimeWindow(begins - LEAD, begins)


def _reachable(watermark: datetime, reach: timedelta) -> TimeWindow:
    """Return the closed minutes that the feed is sure to give."""
    closed = floor(watermark, MINUTE)
    return TimeWindow(ceil(closed - reach, MINUTE), closed)


def _blind(gaps: pl.DataFrame) -> pl.DataFrame:
    return gaps.filter(pl.col("cause").is_in(sorted(BLIND)))


def _settled(fetches: pl.DataFrame) -> pl.DataFrame:
    """Return as symbol, start and end what need not be asked again, whatever the answer was."""
    start = pl.when(pl.col("ended") == Ended.EMPTY).then("reached").otherwise("start")
    return fetches.select("symbol", start=start, end="end")


def _answered(fetches: pl.DataFrame) -> pl.DataFrame:
    return fetches.drop_nulls("reached").select("symbol", start="reached", end="end")


def _windows(rows: pl.DataFrame) -> dict[str, list[TimeWindow]]:
    """Return the disjoint windows of each symbol in rows of symbol, start and end."""
    found: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for symbol, start, end in rows.select("symbol", "start", "end").iter_rows():
        if start < end:
            found[symbol].append(TimeWindow(start, end))
    return {symbol: union(windows) for symbol, windows in found.items()}


def _minute_states(
    gaps: pl.DataFrame, history: pl.DataFrame, fetches: pl.DataFrame, reachable: TimeWindow
) -> pl.DataFrame:
    """Return ``gap_minutes`` with the ``state`` of each: filled, silent, open or a Reason."""
    official = history.select("symbol", "open_time").unique().with_columns(filled=pl.lit(1))
    minutes = gap_minutes(gaps).join(official, on=["symbol", "open_time"], how="left")
    refusals = {
        ended: _windows(fetches.filter(pl.col("ended") == ended))
        for ended in (Ended.NOT_ENTITLED, Ended.UNKNOWN_SYMBOL)
    }
    beyond = _inside(minutes, _windows(_settled(fetches))) | (pl.col("open_time") < reachable.start)
    state = (
        pl.when(pl.col("filled").is_not_null())
        .then(pl.lit("filled"))
        .when(_inside(minutes, _windows(_answered(fetches))))
        .then(pl.lit("silent"))
        .when(_inside(minutes, refusals[Ended.NOT_ENTITLED]))
        .then(pl.lit(Reason.NOT_ENTITLED.value))
        .when(_inside(minutes, refusals[Ended.UNKNOWN_SYMBOL]))
        .then(pl.lit(Reason.NO_DATA.value))
        .when(beyond)
        .then(pl.lit(Reason.OUT_OF_REACH.value))
        .otherwise(pl.lit("open"))
    )
    return minutes.with_columns(state=state)


def _inside(minutes: pl.DataFrame, windows: Mapping[str, Iterable[TimeWindow]]) -> pl.Series:
    """Return whether each minute opens in one of its symbol's windows."""
    edges = [(symbol, w.start, w.end) for symbol in sorted(windows) for w in windows[symbol]]
    schema = {"symbol": pl.String(), "open_time": UTC_TIME, "until": UTC_TIME}
    known = pl.DataFrame(edges, schema=schema, orient="row")
    asked = minutes.select("symbol", "open_time").with_row_index("row").sort("symbol", "open_time")
    # Both sides are sorted within each symbol, just above; the library cannot see that.
    found = asked.join_asof(known, on="open_time", by="symbol", check_sortedness=False).sort("row")
    return (found["until"] > found["open_time"]).fill_null(value=False)
