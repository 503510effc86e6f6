"""``market.indicators_1m`` from ``market.bars_1m`` and the gaps between them.

Beside what is computed stands what TradingView's own studies said, where a token let them stream.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl

from lakehouse_pipeline.errors import SettingsError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.arrays import in_order
from lakehouse_pipeline.market.causes import UNSEEN
from lakehouse_pipeline.market.chosen import Parameters, study_of
from lakehouse_pipeline.market.indicators import (
    OPEN_TIME,
    STUDIES,
    Study,
    compute,
)
from lakehouse_pipeline.market.ingested import (
    LINE,
    TRADINGVIEW,
    deviations,
    final_values,
    unmatched,
)
from lakehouse_pipeline.market.stretches import with_stretches
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow, floor

from .bars import BARS_1M
from .freshness import note
from .gaps import read_unseen
from .result import BuildResult, write_slice

INDICATORS = "market.indicators_1m"
RAW_INDICATORS = "raw.indicators"
SOURCES = (BARS_1M, RAW_INDICATORS)
STREAMED = timedelta(days=2)  # what a session of the feed's studies is judged by
FOLLOWED = DAY  # after a day, in which a later value makes its last ones final
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ORDER = ["symbol", "open_time", "name", "parameters", "plot", "source"]


def studies_of(chosen: Parameters) -> list[Study]:
    """Return the studies that settings name with their parameters.

    Raises:
        SettingsError: if a name or parameter is unknown or cannot be.
    """
    return [study_of(name, parameters) for name, parameters in chosen.items()]


def studies_named(names: Iterable[str], chosen: Parameters) -> list[Study]:
    """Return the studies that a reader asks for: ``rsi``, or ``rsi:7`` with its own parameters.

    A bare name has the parameters of the settings' *chosen*, or else the usual ones. Given ones
    stand in the order of the study's own and show in its columns: ``macd_5_35_5``.

    Raises:
        SettingsError: if a name or parameter is unknown or cannot be.
    """
    named = [_named(name, chosen) for name in map(_plain, names)]
    return [*{(study.name, study.suffix): study for study in named}.values()]


def split_names(text: str) -> list[str]:
    """Return the names in *text*, which commas part; those within brackets do not."""
    return [name for name in re.split(r",(?![^()]*\))", text) if name.strip()]


def _plain(text: str) -> str:
    return "".join(text.lower().split())


def _named(text: str, chosen: Parameters) -> Study:
    name, *values = text.split(":")
    if name not in STUDIES:
        raise _unknown(text)
    if not values:
        return study_of(name, chosen.get(name, {}))
    usual = study_of(name, {}).parameters
    mend = f"Write {_spelled(name, usual.values())} or {name}." if usual else f"Write {name}."
    if len(values) > len(usual):
        many = "1 is" if len(values) == 1 else f"{len(values)} are"
        problem = f"Indicator {text!r}: {name} has {_listed(usual)}, and {many} given."
        raise SettingsError(problem, mend=mend)
    try:
        given = dict(zip(usual, map(float, values), strict=False))
    except ValueError as error:
        raise SettingsError(
            f"Indicator {text!r}: its parameters are numbers.", mend=mend
        ) from error
    study = study_of(name, given)
    # A whole number is the same however it was written.
    shown = [str(int(v) if float(v).is_integer() else v) for v in study.parameters.values()]
    return replace(study, suffix="_" + "_".join(shown[: len(values)]))


def _unknown(text: str) -> SettingsError:
    """Return what to say of *text*, which is no name; it may be one that is written otherwise."""
    meant = re.match(r"[a-z]+", text)
    if meant and meant[0] in STUDIES:
        numbers = re.findall(r"\d+(?:\.\d+)?", text)
        taken = len(study_of(meant[0], {}).parameters)
        mend = f"Write {_spelled(meant[0], numbers[:taken])}."
    else:
        example = _spelled("macd", study_of("macd", {}).parameters.values())
        known = ", ".join(sorted(STUDIES))
        mend = f"Known: {known}; with parameters of its own it is written {example}."
    return SettingsError(f"Indicator {text!r} is not known.", mend=mend)


def _spelled(name: str, values: Iterable[object]) -> str:
    return ":".join([name, *map(str, values)])


def _listed(parameters: Iterable[str]) -> str:
    names = list(parameters)
    what = "parameter" if len(names) == 1 else "parameters"
    return f"{len(names)} {what} ({', '.join(names)})" if names else f"no {what}"


def build_indicators(
    lake: Lakehouse,
    exchange: str,
    day: date,
    studies: Sequence[Study],
    *,
    watermark: datetime,
    symbols: Sequence[str] | None = None,
) -> BuildResult | None:
    """Rebuild the indicators of *day* up to *watermark*; None if no minute of it is closed."""
    closed = _closed_part(TimeWindow.of_day(day), watermark)
    return _build(lake, exchange, closed, studies, symbols=symbols) if closed else None


def tick_indicators(
    lake: Lakehouse, exchange: str, studies: Sequence[Study], *, watermark: datetime
) -> list[BuildResult]:
    """Build the indicators from the first minute closed or changed since the last tick.

    What follows a changed bar changes with it, so it is all rebuilt.
    """
    seen = {source: lake.head(source) for source in SOURCES}
    closed = floor(watermark, MINUTE)
    missed = _missed_by_hour(lake, exchange, closed=closed)
    window = _unbuilt(lake, exchange, studies, missed, closed=closed)
    if window is None:
        return []
    parts = [window.intersect(TimeWindow.of_day(day)) for day in window.days()]
    results = [_build(lake, exchange, part, studies) for part in parts if part is not None]
    # Set after the rows: a crash in between makes the next tick repeat these minutes.
    progress: dict[str, int | str] = {
        f"built_from.{source}.{exchange}": head for source, head in seen.items()
    }
    progress[f"missed.{exchange}"] = json.dumps(missed)
    progress[f"built_to.{exchange}"] = int(window.end.timestamp())
    progress[f"studies.{exchange}"] = _fingerprint(studies)
    lake.append(INDICATORS, schemas.INDICATORS.to_frame(), progress=progress)
    return results


def worst_deviations(lake: Lakehouse, exchange: str, window: TimeWindow) -> pl.DataFrame:
    """Return how far computed and ingested values of *window* are apart, the worst first."""
    return deviations(lake.scan(INDICATORS, exchange=exchange, window=window).collect())


def without_counterpart(lake: Lakehouse, exchange: str, window: TimeWindow) -> pl.DataFrame:
    """Return the ingested values of *window* that ours should be compared with and cannot be."""
    return unmatched(lake.scan(INDICATORS, exchange=exchange, window=window).collect())


def _build(
    lake: Lakehouse,
    exchange: str,
    part: TimeWindow,
    studies: Sequence[Study],
    *,
    symbols: Sequence[str] | None = None,
) -> BuildResult:
    """Rebuild *part* of one day; what is read before it depends on the day alone."""
    names = tuple(symbols) if symbols is not None else None
    inside = OPEN_TIME.is_between(part.start, part.end, closed="left")

    def computed(since: datetime | None, group: Sequence[Study]) -> pl.DataFrame:
        wide = TimeWindow(EPOCH if since is None else since, part.end)
        bars = lake.scan(BARS_1M, exchange=exchange, window=wide, symbols=names).collect()
        unseen = read_unseen(lake, exchange=exchange, window=wide, symbols=names)
        return compute(with_stretches(bars, unseen), group).filter(inside)

    def read() -> pl.DataFrame:
        by_reach: defaultdict[datetime | None, list[Study]] = defaultdict(list)
        for study in studies:
            by_reach[study.reach(part.start)].append(study)
        day = TimeWindow.of_day(part.start.date())
        wide = TimeWindow(day.start - STREAMED, day.end + FOLLOWED)
        raw = lake.scan(RAW_INDICATORS, exchange=exchange, window=wide, symbols=names).collect()
        ours = [computed(since, group) for since, group in by_reach.items()]
        values = pl.concat([*ours, final_values(raw, studies).filter(inside)])
        return in_order(values, *ORDER)

    # The part is closed: that it spans its day says that the watermark has passed it.
    reach = max([STREAMED, *(part.start - (study.reach(part.start) or EPOCH) for study in studies)])
    progress = note(
        lake,
        INDICATORS,
        exchange,
        part,
        watermark=part.end,
        symbols=symbols,
        reach=reach // DAY,
    )
    frame, result = write_slice(
        lake, INDICATORS, Slice(exchange, part, names), read, progress=progress
    )
    facts = {"ingested": frame.filter(source=TRADINGVIEW).height}
    return replace(result, facts=facts)


def _fingerprint(studies: Sequence[Study]) -> int:
    """Return a number that changes when names or parameters do."""
    return zlib.crc32("\n".join(sorted(f"{s.name} {s.label}" for s in studies)).encode())


def _closed_part(window: TimeWindow, watermark: datetime) -> TimeWindow | None:
    end = min(window.end, floor(watermark, MINUTE))
    return TimeWindow(window.start, end) if window.start < end else None


def _unbuilt(
    lake: Lakehouse,
    exchange: str,
    studies: Sequence[Study],
    missed: Mapping[str, int],
    *,
    closed: datetime,
) -> TimeWindow | None:
    """Return the time up to *closed* for which the indicators are older than their sources.

    The first tick, and one with other studies than the last, builds all since yesterday: minutes of
    then are fetched before anything is streamed. Days before are left to whoever rebuilds them.
    """
    reach = _reach(closed)
    built_to = lake.progress(INDICATORS, f"built_to.{exchange}")
    if built_to is None or lake.progress(INDICATORS, f"studies.{exchange}") != _fingerprint(
        studies
    ):
        return TimeWindow(reach, closed)
    bars_seen, raw_seen = (
        lake.progress(INDICATORS, f"built_from.{source}.{exchange}") or 0 for source in SOURCES
    )
    touched = [
        change.start
        for change in lake.changed_since(BARS_1M, bars_seen, exchange)
        if change.end > reach
    ]
    told = json.loads(lake.note(INDICATORS, f"missed.{exchange}") or "{}")
    touched += [
        datetime.fromisoformat(hour)
        for hour in missed.keys() | told.keys()
        if missed.get(hour) != told.get(hour)
    ]
    touched += _decided(lake, exchange, raw_seen, TimeWindow(reach, closed))
    begins = [max(floor(at, MINUTE), reach) for at in touched]
    start = min([datetime.fromtimestamp(built_to, tz=UTC), *begins])
    return TimeWindow(start, closed) if start < closed else None


def _missed_by_hour(lake: Lakehouse, exchange: str, *, closed: datetime) -> dict[str, int]:
    """Return a number for what is not known of each hour, which changes when a gap comes or goes.

    Of a gap that went, or of which history said that nothing was traded, no row is left that a tick
    could look at.
    """
    unseen = read_unseen(lake, exchange=exchange, window=TimeWindow(_reach(closed), closed))
    rows: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for symbol, start, end in (
        unseen.filter(pl.col("cause").is_in(list(UNSEEN))).select("symbol", "start", "end").rows()
    ):
        rows[floor(start, HOUR).isoformat()].append((symbol, start.isoformat(), end.isoformat()))
    return {hour: zlib.crc32(repr(gaps).encode()) for hour, gaps in rows.items()}


def _decided(lake: Lakehouse, exchange: str, seen: int, window: TimeWindow) -> list[datetime]:
    """Return the minutes of *window* that the feed's values after sequence *seen* speak of.

    These are their own and the newest before them of each line, which they have made final.
    """
    time = pl.col("event_time")
    came = (
        lake.scan(RAW_INDICATORS, exchange=exchange, after_sequence=seen)
        .filter(time >= window.start)
        .group_by(LINE)
        .agg(came=time.min())
        .collect()
    )
    if came.is_empty():
        return []
    before = (
        lake.scan(RAW_INDICATORS, exchange=exchange, window=window, columns=[*LINE, "event_time"])
        .join(came.lazy(), on=LINE)
        .filter(time < pl.col("came"))
        .group_by(LINE)
        .agg(time.max())
        .select(time.min())
    )
    instants: list[datetime | None] = [came["came"].min(), before.collect().item()]  # type: ignore[list-item]
    return [instant for instant in instants if instant is not None]


def _reach(closed: datetime) -> datetime:
    """Return from when on a tick rebuilds: days before yesterday are left to others."""
    return floor(closed, DAY) - DAY
