"""What a tick adds to the bars: the time closed, and the minutes touched, since the last one.

Each table remembers which commit of its sources it has seen and up to where it was built, so a
missed or failed tick is caught up by the next. A day rebuilt as a whole gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import polars as pl

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.progress import Noted, Renewal
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.coverage import LATENESS, Mark
from lakehouse_pipeline.market.windows import DAY, MINUTE, SECOND, TimeWindow, ceil, floor, union

from .bars import (
    BARS_1M,
    BARS_1S,
    HISTORY_1M,
    build_1m,
    build_1s,
    built_seconds,
    closed_parts,
    seconds_reached,
)
from .follow_on import FollowOn
from .inputs import COVERAGE
from .kinds import QUOTES, fingerprint, kinds_on, stored_kinds
from .result import BuildResult, write_slice
from .symbols import refresh_symbols


def tick_1s(lake: Lakehouse, exchange: str, *, watermark: datetime) -> list[BuildResult]:
    """Build the seconds of *exchange* closed or touched since the last tick."""
    closed = floor(watermark, SECOND)
    seen, covered = lake.head(QUOTES), lake.head(COVERAGE)
    refresh_symbols(lake, exchange, watermark=watermark)
    reach = _reach(closed)
    news = [
        *first_received(lake, exchange, reach=reach),
        *first_marked(lake, BARS_1S, exchange, reach=reach),
    ]
    came = min(news, default=closed)
    # A mark also lengthens what was covered up to its begin, which ended a lateness before.
    touched = [*(at - LATENESS for at in news), *misbooked(lake, exchange)]
    window = unbuilt(lake, QUOTES, BARS_1S, exchange, closed=closed, touched=touched)
    results: list[BuildResult] = []
    for part in closed_parts(window, watermark) if window else ():
        kinds = kinds_on(lake, exchange, part.start.date())
        progress: dict[str, Noted | Renewal] = {
            **seconds_reached(lake, exchange, part, watermark=watermark),
            f"built_from.{exchange}": seen,
            f"covered_from.{exchange}": covered,
            f"built_to.{exchange}": int(part.end.timestamp()),
            f"kinds.{exchange}": fingerprint(kinds),
        }
        following = FollowOn(lake, exchange, part, watermark=watermark, kinds=kinds, came=came)
        # Before the progress is set: a crash in between makes the next tick compare again.
        if outdated := following.outdated():
            results += build_1s(
                lake,
                exchange,
                outdated.window,
                watermark=watermark,
                symbols=outdated.symbols,
                kinds=kinds,
            )
        _, result = write_slice(
            lake, BARS_1S, Slice(exchange, part), following.bars, progress=progress
        )
        results.append(result)
    return results


def first_received(lake: Lakehouse, exchange: str, *, reach: datetime) -> list[datetime]:
    """Return when the first of the quotes was received that landed since the last tick."""
    seen = lake.progress(BARS_1S, f"built_from.{exchange}")
    if seen is None or seen == lake.head(QUOTES):
        return []
    files = lake.touched_since(QUOTES, seen, exchange)
    received = [
        file.received[0]
        for file in files
        if file.received and file.times and file.times[1] >= reach
    ]
    return [min(received)] if received else []


def first_marked(lake: Lakehouse, table: str, exchange: str, *, reach: datetime) -> list[datetime]:
    """Return from when on *exchange* was seen otherwise than the last tick of *table* knew."""
    known = lake.progress(table, f"covered_from.{exchange}")
    if known is None or known == lake.head(COVERAGE):
        return []
    tells = ~pl.col("kind").is_in([Mark.OPENED, Mark.DESCRIBED]) & (pl.col("end") >= reach)
    marks = lake.scan(COVERAGE, exchange=exchange, after_sequence=known).filter(tells)
    first = marks.select(pl.col("start").min()).collect().item()
    return [] if first is None else [first]


def misbooked(lake: Lakehouse, exchange: str) -> list[datetime]:
    """Return the midnight from which the last day's seconds were booked by another verdict."""
    built_to = lake.progress(BARS_1S, f"built_to.{exchange}")
    if built_to is None:
        return []
    midnight = floor(datetime.fromtimestamp(built_to - 1, tz=UTC), DAY)
    kinds = stored_kinds(lake, exchange, midnight.date())
    booked_as = lake.progress(BARS_1S, f"kinds.{exchange}") or 0
    return [] if kinds is None or fingerprint(kinds) == booked_as else [midnight]


def tick_1m(lake: Lakehouse, exchange: str, *, watermark: datetime) -> list[BuildResult]:
    """Build the minutes of *exchange* closed, or with seconds or history new, since the last tick.

    Official minutes may be days old; each stretch of them is rebuilt by itself.
    """
    closed = floor(min(watermark, built_seconds(lake, exchange, watermark)), MINUTE)
    seen, fetched, covered = (lake.head(table) for table in (BARS_1S, HISTORY_1M, COVERAGE))
    marked = first_marked(lake, BARS_1M, exchange, reach=_reach(closed))
    touched = [at - LATENESS for at in marked]
    window = unbuilt(lake, BARS_1S, BARS_1M, exchange, closed=closed, touched=touched)
    windows = union([*repaired(lake, exchange, closed=closed), *([window] if window else [])])
    if not windows:
        return []
    results = [
        result for part in windows for result in build_1m(lake, exchange, part, watermark=watermark)
    ]
    # Set after the rows: a crash in between makes the next tick repeat these minutes.
    lake.append(
        BARS_1M,
        schemas.MINUTE_BARS.to_frame(),
        progress={
            f"built_from.{exchange}": seen,
            f"repaired_from.{exchange}": fetched,
            f"covered_from.{exchange}": covered,
            f"built_to.{exchange}": int(closed.timestamp()),
        },
    )
    return results


def repaired(lake: Lakehouse, exchange: str, *, closed: datetime) -> list[TimeWindow]:
    """Return the minutes before *closed* with official bars that came since the last tick.

    Of an exchange with rolling counters also those a day later: what left their window is known.
    """
    seen = lake.progress(BARS_1M, f"repaired_from.{exchange}") or 0
    if lake.head(HISTORY_1M) == seen:  # planning the files would cost more each year
        return []
    came = [
        (change.start, ceil(change.end, MINUTE))
        for change in lake.changed_since(HISTORY_1M, seen, exchange)
    ]
    if lake.progress(BARS_1S, f"kinds.{exchange}"):
        came += [(start + DAY, end + DAY + MINUTE) for start, end in came]
    return [TimeWindow(start, min(end, closed)) for start, end in came if start < closed]


def unbuilt(
    lake: Lakehouse,
    source: str,
    target: str,
    exchange: str,
    *,
    closed: datetime,
    touched: Iterable[datetime] = (),
) -> TimeWindow | None:
    """Return the time up to *closed* for which *target* is older than *source*.

    The first tick of all starts at its UTC midnight. What is *touched* otherwise, and rows, of a
    day before yesterday (a replay) are left to whoever rebuilds that day, or one tick would
    rebuild years.
    """
    seen = lake.progress(target, f"built_from.{exchange}")
    built_to = lake.progress(target, f"built_to.{exchange}")
    if seen is None or built_to is None:
        start = floor(closed, DAY)
    else:
        reach = _reach(closed)
        changed = [
            change.start
            for change in lake.changed_since(source, seen, exchange)
            if change.end > reach
        ]
        begins = [max(floor(at, MINUTE), reach) for at in (*changed, *touched)]
        start = min([datetime.fromtimestamp(built_to, tz=UTC), *begins])
    return TimeWindow(start, closed) if start < closed else None


def _reach(closed: datetime) -> datetime:
    return floor(closed, DAY) - DAY
