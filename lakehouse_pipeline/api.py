"""``open_lakehouse()``: what a notebook uses.

::

    from lakehouse_pipeline.api import open_lakehouse

    lake = open_lakehouse()
    lake.bars("BINANCE:BTCUSDT", "5m", start="2026-11-01", indicators=["rsi", "macd"])
    lake.scan("raw.quotes", exchange="OKX").group_by("symbol").len().collect()

Eager where a person reads the result, lazy (``scan``) where rows are many. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from .build import views
from .build.gaps import read_gaps
from .build.indicators import split_names, studies_named
from .build.upkeep import travel_days, travel_tag
from .errors import UsageError
from .lake.lakehouse import Lakehouse
from .market.chosen import Parameters
from .market.stretches import as_one_stretch, with_stretches
from .market.windows import TimeWindow
from .settings import load_settings

Instant = datetime | str
_START, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def open_lakehouse(state_dir: Path | str | None = None) -> Reader:
    """Open the lake under *state_dir*, or where the settings say.

    Raises:
        LakehouseError: one line saying what is wrong and the mend.
    """
    arguments = {} if state_dir is None else {"state_dir": Path(state_dir)}
    settings = load_settings(**arguments)
    return Reader(Lakehouse.open(settings), settings.indicators)


class Reader:
    """Reads one lake. Symbols are full names, or tickers where one exchange has them.

    Times are aware datetimes or ISO 8601 texts (UTC where they name no zone); ``start`` is
    included, ``end`` is not.
    """

    def __init__(self, lake: Lakehouse, indicators: Parameters | None = None) -> None:
        self._lake = lake
        self._indicators = indicators or {}

    def symbols(self) -> list[str]:
        """Return the full names of everything that was ever recorded."""
        return views.recorded_symbols(self._lake)

    def bars(
        self,
        symbol: str,
        interval: str = "1m",
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        last: str | None = None,
        indicators: Sequence[str] | str = (),
        carry: bool = False,
    ) -> pl.DataFrame:
        """Return sparse OHLCV bars in time order, with one column a plot of *indicators*.

        With *last*, such as ``2h``, they are the newest of that span. An indicator is named as in
        ``rsi``, with the parameters of ``exchanges.yaml`` or the usual ones, or as in ``rsi:7``
        with its own. After a gap it is null until it is warm again, VWAP until the next UTC day,
        and OBV counts anew; with *carry* they go on. Beside indicators stands ``stretch``, the
        number of gaps before the bar.
        """
        step = views.parse_interval(interval)
        name = views.resolve_symbol(symbol, self.symbols())
        if last is not None and (start is not None or end is not None):
            raise UsageError("last excludes start and end.", mend="Give one or the other.")
        span = None if last is None else views.parse_span(last)
        window = (
            _window(start, end)
            if span is None
            else views.newest_window(self._lake, name, step, span)
        )
        names = split_names(indicators) if isinstance(indicators, str) else indicators
        studies = studies_named(names, self._indicators)
        if studies:
            stretch = as_one_stretch if carry else with_stretches
            return views.read_with_studies(
                self._lake, name, studies, step=step, window=window, stretch=stretch
            )
        return views.read_bars(self._lake, name, step=step, window=window)

    def gaps(
        self,
        symbol: str | None = None,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
    ) -> pl.DataFrame:
        """Return the ledger of what was not seen: every row that overlaps start to end, whole."""
        names = [views.resolve_symbol(symbol, self.symbols())] if symbol else None
        return read_gaps(self._lake, symbols=names, window=_window(start, end))

    def scan(
        self,
        table: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        exchange: str | None = None,
        symbols: Collection[str] | None = None,
        as_of: date | str | None = None,
    ) -> pl.LazyFrame:
        """Return the rows of any table, lazily.

        With *as_of*, one of ``days``, as they were when that UTC day was closed, and none of later
        days: tables read as of the same day agree with each other. Quotes and bars can be.

        Raises:
            UsageError: naming the tables there are, or the days that can be travelled to.
        """
        if as_of is None:
            window, tag = _window(start, end), None
        else:
            day = as_of if isinstance(as_of, date) else _day(as_of)
            window = (_window(start, end) or TimeWindow(_START, _END)).intersect(
                TimeWindow(_START, TimeWindow.of_day(day).end)
            )
            if window is None:
                raise UsageError(f"start {start} is after {day}.", mend="Read an earlier time.")
            tag = travel_tag(self._lake, table, day)
        return self._lake.scan(
            table, window=window, exchange=exchange, symbols=symbols, snapshot=tag
        )

    def days(self) -> list[date]:
        """Return the days that ``scan`` can travel back to."""
        return travel_days(self._lake)


def _window(start: Instant | None, end: Instant | None) -> TimeWindow | None:
    if start is None and end is None:
        return None
    first = _START if start is None else _aware(start)
    until = _END if end is None else _aware(end)
    if until <= first:
        raise UsageError(f"end {until} is not after start {first}.", mend="Swap them.")
    return TimeWindow(first, until)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"Day {text!r} is not a date.", mend="Write 2024-08-09.") from error


def _aware(instant: Instant) -> datetime:
    if isinstance(instant, str):
        try:
            instant = datetime.fromisoformat(instant)
        except ValueError as error:
            raise UsageError(
                f"Time {instant!r} is not ISO 8601.", mend="Write 2024-08-09T14:00:00Z."
            ) from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
