"""When each symbol was seen: sessions alive, symbols subscribed, windows shed or stalled.

Add here what is true of being connected. Why a symbol was *not* seen, and what that cost,
belongs to ``gaps``.

Two times meet here. A *run* is in received time: from the first data of a symbol to the last
frame, over every session that followed without a hole. A *covered* window is in event time: a
run whose end is shortened by the lateness, because a trade of second :05 may arrive at :06.3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import polars as pl

from lakehouse_pipeline.market.windows import TimeWindow, intersect, subtract, union

LATENESS = timedelta(seconds=5)
_INSTANT = timedelta(microseconds=1)
_FAR = datetime.max.replace(tzinfo=UTC)


class Mark(StrEnum):
    """What a coverage row says. Points have ``start == end``."""

    OPENED = "opened"  # point: the session's handshake was done
    ALIVE = "alive"  # from, to: frames came, contiguous within a session
    SUBSCRIBED = "subscribed"  # point: first data of a symbol on this session
    UNSUBSCRIBED = "unsubscribed"  # point: we no longer want the symbol
    REFUSED = "refused"  # point: the feed would not give the symbol
    STALLED = "stalled"  # from, to: the symbol fell silent while others ticked
    SHED = "shed"  # from, to: we dropped updates because we could not keep up
    DESCRIBED = "described"  # point: what the feed says the symbol is, as JSON in the detail
    ENDED = "ended"  # point: the last frame received, with the reason


class Ending(StrEnum):
    """How a session ended, as the worker saw it."""

    CLOSED = "closed"  # by the feed or the network
    SILENT = "silent"  # no frame for the watchdog's time
    STOPPED = "stopped"  # the worker was told to stop
    HANDED_OVER = "handed_over"  # a newer worker recorded every symbol
    LEASE_OVER = "lease_over"  # no newer worker did, at the last moment for it
    CLOCK_STEPPED = "clock_stepped"  # the machine's clock was set: a new session has the new time
    REFUSED = "refused"
    BANNED = "banned"
    CRASHED = "crashed"  # found by the next worker: nobody had said goodbye


_BLIND = (Mark.STALLED, Mark.SHED)
_SILENCED = (Mark.STALLED, Mark.REFUSED)


def watermark(coverage: pl.DataFrame, exchange: str) -> datetime | None:
    """Return the instant up to which the exchange's event time is complete; None if never alive."""
    alive = (pl.col("exchange") == exchange) & (pl.col("kind") == Mark.ALIVE)
    end = coverage.filter(alive)["end"].max()
    return end - LATENESS if isinstance(end, datetime) else None


def covered(coverage: pl.DataFrame, symbol: str, window: TimeWindow) -> list[TimeWindow]:
    """Return the parts of *window*, in event time, in which *symbol* was seen."""
    return intersect(covered_windows(coverage).get(symbol, []), [window])


def covered_windows(coverage: pl.DataFrame) -> dict[str, list[TimeWindow]]:
    """Return every symbol's covered windows in event time, disjoint and in order."""
    # What happened a moment before came after the last frame, or among what was shed.
    unheard = {window.end for windows in session_windows(coverage).values() for window in windows}
    unheard |= set(coverage.filter(pl.col("kind") == Mark.SHED)["start"].to_list())
    result = {}
    for symbol, windows in runs(coverage).items():
        edges = (
            (window.start, window.end - LATENESS if window.end in unheard else window.end)
            for window in windows
            if window.length > _INSTANT
        )
        result[symbol] = [TimeWindow(start, end) for start, end in edges if start < end]
    return result


def session_windows(coverage: pl.DataFrame) -> dict[str, list[TimeWindow]]:
    """Return when each session was alive, in received time; touching rows are one window."""
    alive = (
        coverage.lazy()
        .filter(pl.col("kind") == Mark.ALIVE)
        .select("session_id", "start", "end")
        .sort("session_id", "start", "end")
        .with_columns(
            before=pl.col("end").cum_max().shift().over("session_id"),
        )
        .with_columns(run=(pl.col("start") > pl.col("before")).fill_null(value=True).cum_sum())
        .group_by("session_id", "run", maintain_order=True)
        .agg(pl.col("start").min(), pl.col("end").max())
        .collect()
    )
    windows: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for session, _, start, end in alive.iter_rows():  # a handful a day: they are merged
        windows[session].append(TimeWindow(start, max(end, start + _INSTANT)))
    return dict(windows)


def runs(coverage: pl.DataFrame) -> dict[str, list[TimeWindow]]:
    """Return when each symbol was seen, in received time, over all sessions.

    A session whose alive rows have not landed yet counts for the instant of its first data, so
    that rows before and after a hole are never taken for neighbors.
    """
    alive = session_windows(coverage)
    lost = _blind_windows(coverage)
    seen: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for (session, symbol), wanted in subscriptions(coverage).items():
        windows = intersect(wanted, alive.get(session, []))
        first = TimeWindow(wanted[0].start, wanted[0].start + _INSTANT)
        holes = lost.get((session, symbol), []) + lost.get((session, None), [])
        seen[symbol] += subtract([*windows, first], holes)
    return {symbol: union(windows) for symbol, windows in seen.items()}


def subscriptions(coverage: pl.DataFrame) -> dict[tuple[str, str], list[TimeWindow]]:
    """Return, by (session, symbol), when data was due; open-ended ones end in the far future.

    A symbol that stalled or was refused is due again only when its data comes again, which the
    worker marks as subscribed: until then its silence proves nothing.
    """
    due: defaultdict[tuple[str, str], list[TimeWindow]] = defaultdict(list)
    for session, symbol, kind, at in _subscription_marks(coverage, *_SILENCED):
        _switch(due[session, symbol], at, on=kind == Mark.SUBSCRIBED)
    return {key: windows for key, windows in due.items() if windows}


def wanted(coverage: pl.DataFrame) -> dict[str, list[TimeWindow]]:
    """Return when each symbol was meant to be recorded, whatever became of its sessions.

    From the first data of a symbol until it is unsubscribed on its newest session: taking it off
    an older one is a handover.
    """
    meant: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    newest: dict[str, str] = {}
    for session, symbol, kind, at in _subscription_marks(coverage):
        if kind == Mark.SUBSCRIBED:
            newest[symbol] = session
        if newest.get(symbol) == session:
            _switch(meant[symbol], at, on=kind == Mark.SUBSCRIBED)
    return {symbol: windows for symbol, windows in meant.items() if windows}


def paused(coverage: pl.DataFrame) -> dict[str, list[TimeWindow]]:
    """Return the times between two in which a symbol was wanted, as far as *coverage* shows them.

    It need not reach back to the subscription before.
    """
    left: dict[str, datetime] = {}
    newest: dict[str, str] = {}
    pauses: defaultdict[str, list[TimeWindow]] = defaultdict(list)
    for session, symbol, kind, at in _subscription_marks(coverage):
        if kind == Mark.SUBSCRIBED:
            newest[symbol] = session
            since = left.pop(symbol, at)
            if since < at:
                pauses[symbol].append(TimeWindow(since, at))
        elif newest.setdefault(symbol, session) == session:
            left.setdefault(symbol, at)
    return dict(pauses)


def _subscription_marks(
    coverage: pl.DataFrame, *more: Mark
) -> Iterator[tuple[str, str, str, datetime]]:
    return (
        coverage.filter(pl.col("kind").is_in([Mark.SUBSCRIBED, Mark.UNSUBSCRIBED, *more]))
        .drop_nulls("symbol")
        .sort("start", "writer_id", "sequence")
        .select("session_id", "symbol", "kind", "start")
        .iter_rows()
    )


def _switch(windows: list[TimeWindow], at: datetime, *, on: bool) -> None:
    """Open a window at *at*, or close the open one; a mark that repeats the state is ignored."""
    is_on = bool(windows) and windows[-1].end == _FAR
    if on and not is_on:
        windows.append(TimeWindow(at, _FAR))
    elif is_on and not on:
        start = windows.pop().start
        if start < at:
            windows.append(TimeWindow(start, at))


def _blind_windows(
    coverage: pl.DataFrame,
) -> dict[tuple[str, str | None], list[TimeWindow]]:
    """Return the shed and stalled windows by (session, symbol); symbol None is all of it."""
    marks = coverage.filter(pl.col("kind").is_in(_BLIND) & (pl.col("start") < pl.col("end")))
    blind: defaultdict[tuple[str, str | None], list[TimeWindow]] = defaultdict(list)
    for session, symbol, start, end in marks.select(
        "session_id", "symbol", "start", "end"
    ).iter_rows():
        blind[session, symbol].append(TimeWindow(start, end))
    return dict(blind)
