"""What is computed on read and stored nowhere: any interval, a dense series, how far we are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from lakehouse_pipeline.errors import UsageError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.tables import TABLES
from lakehouse_pipeline.market.dense import dense
from lakehouse_pipeline.market.indicators import (
    Start,
    Study,
    remembered,
    widen,
)
from lakehouse_pipeline.market.rolled import judged
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.stretches import SEEN_SINCE, with_stretches
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, SECOND, TimeWindow, ceil, floor

from .bars import BARS_1M, BARS_1S, built_up_to
from .gaps import read_unseen
from .inputs import COVERAGE, read_coverage

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


def parse_interval(text: str) -> timedelta:
    """Return the step that *text* such as ``1s``, ``5m``, ``4h`` or ``1d`` names.

    Raises:
        UsageError: if it is not a whole number of s, m, h or d that divides a day, or of days.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    step = int(match[1]) * UNITS[match[2]] if match else timedelta(0)
    if not match or (DAY % step if step < DAY else step % DAY):
        raise UsageError(
            f"Interval {text!r} is not known.",
            mend="Write a number and s, m, h or d that divides a day: 1s, 5m, 4h, 1d.",
        )
    return step


def parse_span(text: str) -> timedelta:
    """Return the length that *text* such as ``90s``, ``2h`` or ``7d`` names.

    Raises:
        UsageError: if it is not a whole number of s, m, h or d.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if not match:
        raise UsageError(f"Span {text!r} is not known.", mend="Write 90s, 30m, 2h or 7d.")
    return int(match[1]) * UNITS[match[2]]


def resolve_symbol(name: str, known: Iterable[str]) -> str:
    """Return the full name of *name*, which may leave out the exchange where it is not in doubt.

    Raises:
        UsageError: if no known symbol fits, or more than one.
    """
    names = sorted(set(known))
    if name in names:
        return name
    fits = [full for full in names if full.split(":", 1)[-1] == name]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(f"Symbol {name!r} is in doubt.", mend=f"Write one of {', '.join(fits)}.")
    raise UsageError(
        f"Symbol {name!r} is not recorded.", mend=f"Known: {', '.join(names) or 'none yet'}."
    )


def recorded_symbols(lake: Lakehouse, exchange: str | None = None) -> list[str]:
    """Return the full names that the coverage of *exchange* (or of all) speaks of, sorted."""
    named = lake.scan(COVERAGE, exchange=exchange, columns=["symbol"])
    return sorted(named.drop_nulls().unique().collect()["symbol"].to_list())


def recorded_exchanges(lake: Lakehouse) -> list[str]:
    """Return the exchanges that the coverage speaks of, sorted."""
    named = lake.scan(COVERAGE, columns=["exchange"])
    return sorted(named.unique().collect()["exchange"].to_list())


def stored_step(step: timedelta) -> tuple[str, timedelta]:
    """Return the stored table, and its step, that *step* is computed from."""
    return (BARS_1S, SECOND) if step % MINUTE else (BARS_1M, MINUTE)


def newest_bar(lake: Lakehouse, symbol: str, step: timedelta) -> datetime | None:
    """Return the open time of the newest stored bar that *step* is computed from."""
    table, _ = stored_step(step)
    times = lake.scan(table, symbols=[symbol], columns=["open_time"])
    newest = times.max().collect()["open_time"].item()
    assert newest is None or isinstance(newest, datetime)
    return newest


def newest_window(
    lake: Lakehouse, symbol: str, step: timedelta, span: timedelta
) -> TimeWindow | None:
    """Return the last *span* of bars of *step*: as many as fit into it, if there are so many.

    It is counted back from the end of the newest, so it also works on replayed days. None if there
    is no bar.
    """
    newest = newest_bar(lake, symbol, step)
    if newest is None:
        return None
    end = floor(newest, step) + step
    return TimeWindow(end - min(span, end - EPOCH), end)


def read_bars(
    lake: Lakehouse, symbol: str, *, step: timedelta, window: TimeWindow | None = None
) -> pl.DataFrame:
    """Return the sparse bars of *symbol* at any *step*, in time order, in the bars' schema.

    The last may still be forming, and then says so.
    """
    bars, stored = _read_stored(lake, symbol, step=step, window=window)
    return bars if step == stored else _judged(lake, roll_up(bars, step), bars, step)


def _read_stored(
    lake: Lakehouse, symbol: str, *, step: timedelta, window: TimeWindow | None
) -> tuple[pl.DataFrame, timedelta]:
    """Return the stored bars of whole intervals of *step*, and their own step."""
    table, stored = stored_step(step)
    wide = window and TimeWindow(floor(window.start, step), ceil(window.end, step))
    return lake.scan(table, symbols=[symbol], window=wide).sort("open_time").collect(), stored


def _judged(
    lake: Lakehouse, rolled: pl.DataFrame, stored: pl.DataFrame, step: timedelta
) -> pl.DataFrame:
    """Return *rolled* bars of one symbol with what they hold of their whole intervals."""
    if rolled.is_empty():
        return rolled
    exchange, newest = rolled["exchange"][0], stored["open_time"].max()
    assert isinstance(newest, datetime)
    table, own = stored_step(step)
    window = TimeWindow(rolled["open_time"][0], rolled["open_time"][-1] + step)
    return judged(
        rolled,
        stored,
        read_coverage(lake, exchange, window),
        step=step,
        # A build of chosen symbols says nothing of the table; its rows do.
        closed=max(built_up_to(lake, table, exchange), newest + own),
    )


def read_dense_bars(
    lake: Lakehouse, symbol: str, *, step: timedelta, window: TimeWindow | None = None
) -> pl.DataFrame:
    """Return a row for every interval from the first bar to the last, with ``fill_kind``.

    A *window* begins and ends with quiet intervals if a bar stands within a day of them.
    """
    # Whether nothing was traded at its edges, and at what price, is known from bars beyond them.
    wide = window and TimeWindow(window.start - DAY, window.end + DAY)
    bars = read_bars(lake, symbol, step=step, window=wide)
    if bars.is_empty():
        return bars.with_columns(fill_kind=pl.lit(None, pl.String))
    span = TimeWindow(bars["open_time"][0], bars["open_time"][-1] + step)
    filled = dense(bars, read_unseen(lake, symbols=[symbol], window=span), span, step)
    if window is None:
        return filled
    asked = (floor(window.start, step), ceil(window.end, step))
    return filled.filter(pl.col("open_time").is_between(*asked, closed="left"))


def read_with_studies(
    lake: Lakehouse,
    symbol: str,
    studies: Sequence[Study],
    *,
    step: timedelta,
    window: TimeWindow | None = None,
    stretch: Callable[
        [pl.DataFrame, pl.DataFrame, timedelta, timedelta], pl.DataFrame
    ] = with_stretches,
) -> pl.DataFrame:
    """Return bars as ``read_bars`` does, with their stretch and one column a plot of *studies*.

    Enough bars before the window are read for its values not to show where it starts. *stretch*
    says what a gap does; ``as_one_stretch`` carries values across it.
    """
    memory = max((study.memory for study in studies), default=0)
    for wide in _reaches(window, step, studies, memory):
        bars, stored = _read_stored(lake, symbol, step=step, window=wide)
        gaps = read_unseen(lake, symbols=[symbol], window=wide)
        start = floor(window.start, step) if window else EPOCH
        wanted = pl.col("open_time") >= start
        found = stretch(bars, gaps, stored, step)
        if remembered(found.filter(~wanted), studies):
            break
    answer = widen(found, studies).filter(wanted).drop(SEEN_SINCE)
    return answer if step == stored else _judged(lake, answer, bars, step)


def _reaches(
    window: TimeWindow | None, step: timedelta, studies: Sequence[Study], memory: int
) -> Iterator[TimeWindow | None]:
    """Yield what may do to read for *window*, ever longer, until it is all there is."""
    starts = {study.start for study in studies}
    if window is not None and Start.STRETCH not in starts:
        # Whether a day was seen from its start on shows in bars before it.
        session = floor(window.start, DAY) - DAY if Start.DAY in starts else window.start
        for times in (2, 8):  # most symbols trade in every other interval at least
            since = min(window.start - times * memory * step, session)
            yield TimeWindow(since, window.end)
    yield TimeWindow(EPOCH, window.end) if window else None


def describe_tables(lake: Lakehouse) -> pl.DataFrame:
    """Return one row a table: rows, files, hot files, bytes."""
    rows = []
    for table in TABLES:
        files = lake.files(table)
        rows.append(
            {
                "table": table,
                "rows": files["rows"].sum(),
                "files": files.height,
                "hot_files": files.filter(pl.col("spec") == "hot").height,
                "bytes": files["bytes"].sum(),
            }
        )
    return pl.DataFrame(rows)
