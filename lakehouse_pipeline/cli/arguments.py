"""Arguments that several commands read alike: times, days, which bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from lakehouse_pipeline.build import views
from lakehouse_pipeline.build.indicators import split_names, studies_named
from lakehouse_pipeline.errors import StateDirectoryError, UsageError
from lakehouse_pipeline.lake.catalog import CATALOG_FILE
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.indicators import Study
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.settings import load_settings


def open_to_read() -> Lakehouse:
    """Open the lake that the settings name, without making one where there is none.

    Raises:
        StateDirectoryError: if nothing was ever recorded there.
    """
    settings = load_settings()
    if not settings.lake.catalog_uri and not (settings.state_dir / CATALOG_FILE).is_file():
        demo = settings.state_dir / "demo"
        elsewhere = (
            f"The demo's is read with LAKEHOUSE_STATE_DIR={demo}."
            if (demo / CATALOG_FILE).is_file()
            else "Run `make demo` or `make up` first, or set LAKEHOUSE_STATE_DIR."
        )
        raise StateDirectoryError(f"There is no lake at {settings.state_dir}.", mend=elsewhere)
    return Lakehouse.open(settings)


def parse_time(text: str) -> datetime:
    """Return *text* (ISO 8601; UTC where it names no zone) as an aware UTC time.

    Raises:
        UsageError: if it is no time.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"Time {text!r} is not ISO 8601.", mend="Write 2024-08-09 or 2024-08-09T14:00:00Z."
        ) from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def parse_day(text: str) -> date:
    """Return *text* as a UTC day.

    Raises:
        UsageError: if it is no day.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"Day {text!r} is not a date.", mend="Write 2024-08-09.") from error


def parse_days(first: str, last: str) -> list[date]:
    """Return each day from *first* to *last*, both included.

    Raises:
        UsageError: if *last* is before *first*.
    """
    start, end = parse_day(first), parse_day(last)
    if end < start:
        raise UsageError(f"--to {last} is before --from {first}.", mend="Swap them.")
    return [start + timedelta(days=n) for n in range((end - start).days + 1)]


def window_between(start: str | None, end: str | None) -> TimeWindow | None:
    """Return the window that --from and --to ask for; None for everything.

    Raises:
        UsageError: if they contradict each other.
    """
    if start is None and end is None:
        return None
    first = parse_time(start) if start else START_OF_TIME
    until = parse_time(end) if end else END_OF_TIME
    if until <= first:
        raise UsageError(f"--to {end} is not after --from {start}.", mend="Swap them.")
    return TimeWindow(first, until)


@dataclass(frozen=True, slots=True)
class BarsAsked:
    """Which bars a command line asks for, and the lake that has them."""

    lake: Lakehouse
    symbol: str
    step: timedelta
    window: TimeWindow | None  # None: no time was asked for
    studies: Sequence[Study]

    def newest(self, count: int) -> TimeWindow | None:
        """Return the time of the newest *count* intervals."""
        return views.newest_window(self.lake, self.symbol, self.step, count * self.step)


def ask_for_bars(
    symbol: str,
    interval: str,
    *,
    start: str | None,
    end: str | None,
    last: str | None,
    with_: str | None,
) -> BarsAsked:
    """Return what a command that reads bars is asked for.

    Raises:
        UsageError: naming the argument that cannot be.
    """
    step = views.parse_interval(interval)
    studies = studies_named(split_names(with_), load_settings().indicators) if with_ else []
    if last is not None and (start is not None or end is not None):
        raise UsageError("--last excludes --from and --to.", mend="Give one or the other.")
    span = None if last is None else views.parse_span(last)
    window = window_between(start, end)
    lake = open_to_read()
    name = views.resolve_symbol(symbol, views.recorded_symbols(lake))
    if span is not None:
        window = views.newest_window(lake, name, step, span)
    return BarsAsked(lake, name, step, window, studies)


START_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2200, 1, 1, tzinfo=UTC)
