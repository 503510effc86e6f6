"""The ledger of what was not seen: when, why, with what evidence, and how much volume it cost.

That something was not seen follows from ``coverage`` alone, why from ``causes``; a repair and its
outcome belong to ``reconcile``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import polars as pl

from lakehouse_pipeline.market.causes import BLIND, Cause, Testimony
from lakehouse_pipeline.market.coverage import LATENESS, covered_windows, paused, wanted
from lakehouse_pipeline.market.crossings import Crossings
from lakehouse_pipeline.market.schemas import GAPS
from lakehouse_pipeline.market.volume import ALL_SESSION, GAUGES, CounterKind
from lakehouse_pipeline.market.windows import DAY, TimeWindow, floor, intersect, subtract

__all__ = ["BLIND", "Cause", "find_gaps", "gap_id", "with_pauses"]


def find_gaps(
    quotes: pl.DataFrame,
    coverage: pl.DataFrame,
    window: TimeWindow,
    watermark: datetime,
    *,
    since: datetime | None = None,
    kinds: Mapping[str, CounterKind] = ALL_SESSION,
) -> pl.DataFrame:
    """Return the parts of *window* before *watermark* in which a wanted symbol was not seen.

    GAPS schema, by symbol and time: one row for each UTC day a gap touches, all with the
    ``gap_id`` of the gap's true start. A symbol is wanted from its first ``subscribed`` mark in
    *coverage* until it is unsubscribed, so *coverage* must reach back to the last session before
    the window. *quotes*, *since* and *kinds* are as for ``bars.build_bars``; the first row after a
    gap, beyond the window too, gives ``missed_volume``. A hole at the watermark no longer than the
    lateness is not reported: the next alive mark will close it.
    """
    if watermark <= window.start:
        return GAPS.to_frame()
    visible = TimeWindow(window.start, min(window.end, watermark))
    holes = _holes(coverage, watermark)
    asked = sorted(symbol for symbol, found in holes.items() if intersect(found, [visible]))
    counted = [symbol for symbol in asked if kinds.get(symbol) not in GAUGES]
    concerned = quotes.filter(pl.col("symbol").is_in(counted))
    crossings = Crossings.of(concerned, coverage, since or floor(window.start, DAY))
    testimony = Testimony.of(coverage)
    exchanges = dict(coverage.drop_nulls("symbol").select("symbol", "exchange").iter_rows())
    rows = []
    for symbol in asked:
        for hole in holes[symbol]:
            if not hole.intersect(visible):  # most are of other days
                continue
            parts = [(day, part) for day in hole.days() if (part := _on(day, hole, visible))]
            crossing = crossings.across(symbol, hole)
            cause, why = testimony.explain(symbol, hole)
            same = (gap_id(exchanges[symbol], symbol, hole.start), exchanges[symbol], symbol)
            said = (cause.value, f"{why}; {crossing.evidence}")
            rows += [
                (*same, part.start, part.end, *said, *crossing.volume_on(day, hole))
                for day, part in parts
            ]
    return pl.DataFrame(rows, schema=GAPS, orient="row")


def with_pauses(ledger: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
    """Return *ledger* and, as ``unsubscribed``, when nobody wanted a symbol that came back later.

    By symbol and time. A pause is one row however long, without a volume.
    """
    exchanges = dict(coverage.drop_nulls("symbol").select("symbol", "exchange").iter_rows())
    rows = [
        {
            "gap_id": gap_id(exchanges[symbol], symbol, pause.start),
            "exchange": exchanges[symbol],
            "symbol": symbol,
            "start": pause.start,
            "end": pause.end,
            "cause": Cause.UNSUBSCRIBED.value,
            "evidence": "unsubscribed, and subscribed again at its end",
        }
        for symbol, pauses in paused(coverage).items()
        for pause in pauses
    ]
    return pl.concat([ledger, pl.DataFrame(rows, schema=GAPS)]).sort("symbol", "start")


def gap_id(exchange: str, symbol: str, start: datetime) -> str:
    """Return the name of a gap: the same wherever and however often it is found."""
    instant = start.astimezone(UTC).isoformat(timespec="microseconds")
    return hashlib.sha256(f"{exchange}|{symbol}|{instant}".encode()).hexdigest()[:16]


def _holes(coverage: pl.DataFrame, watermark: datetime) -> dict[str, list[TimeWindow]]:
    """Return by symbol where it was wanted and not seen, over all of *coverage*."""
    covered = covered_windows(coverage)
    return {
        symbol: [
            hole
            for hole in subtract(_until(watermark, windows), covered.get(symbol, []))
            if hole.end < watermark or hole.length > LATENESS
        ]
        for symbol, windows in wanted(coverage).items()
    }


def _until(watermark: datetime, windows: Sequence[TimeWindow]) -> list[TimeWindow]:
    return [TimeWindow(w.start, min(w.end, watermark)) for w in windows if w.start < watermark]


def _on(day: date, hole: TimeWindow, visible: TimeWindow) -> TimeWindow | None:
    part = hole.intersect(TimeWindow.of_day(day))
    return part.intersect(visible) if part else None
