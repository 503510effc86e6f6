"""One line per symbol and instant, where two sessions overlap.

Both sessions' rows are kept in ``raw.quotes``. Every reader takes its rows through here, so that
no trade is seen twice and no delta is taken between two counters.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import microseconds, text_changes
from lakehouse_pipeline.market.quotes import (
    RECEIVED,
    Kind,
    canonical,
    observes_counter,
)

_INSTANT = timedelta(microseconds=1)


def select_line(quotes: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
    """Return *quotes* in canonical order with one session per symbol and instant.

    The older line is kept until the latest instant at which both counters agree, or else until
    its last update. There the newer line's state becomes a ``restore`` row: it sets the price and
    the counter, and is no trade. A session that ends within an older one is left out.
    """
    rows = canonical(quotes)
    crowded = _symbols_with_overlap(rows)
    if not crowded:
        return rows
    ends = _session_ends(coverage)
    apart = pl.col("symbol").is_in(crowded)
    lines = [
        _line(part.sort(RECEIVED), ends)
        for part in rows.filter(apart).partition_by("symbol", maintain_order=True)
    ]
    return canonical(pl.concat([rows.filter(~apart), *lines]))


def _symbols_with_overlap(rows: pl.DataFrame) -> list[str]:
    """Return the symbols for which two sessions' rows overlap in received time."""
    if rows.is_empty():
        return []
    symbols = text_changes(rows["symbol"])
    starts = np.union1d(text_changes(rows["session_id"]), symbols)
    if starts.size == symbols.size:  # each has one session
        return []
    received = microseconds(rows["received_at"])
    stretches = rows.select(
        pl.col("symbol").gather(starts), pl.col("session_id").gather(starts)
    ).with_columns(
        first=pl.Series(np.minimum.reduceat(received, starts)),
        last=pl.Series(np.maximum.reduceat(received, starts)),
    )
    overlaps = (
        stretches.group_by("symbol", "session_id")
        .agg(pl.col("first").min(), pl.col("last").max())
        .sort("symbol", "first", "last")
        .filter(pl.col("first") <= pl.col("last").cum_max().shift().over("symbol"))
    )
    return overlaps["symbol"].unique().sort().to_list()


def _session_ends(coverage: pl.DataFrame) -> dict[str, datetime]:
    """Return by session the latest instant at which its coverage knows it alive."""
    ends = coverage.group_by("session_id").agg(pl.col("end").max())
    return dict(ends.iter_rows())


def _line(rows: pl.DataFrame, ends: dict[str, datetime]) -> pl.DataFrame:
    """Return the one line through *rows* of one symbol, given in receive order."""
    sessions = rows.partition_by("session_id", maintain_order=True)
    line = sessions[0]
    end = _end(line, ends)
    for newer in sessions[1:]:
        newer_end = _end(newer, ends)
        if newer["received_at"][0] > line["received_at"][-1]:
            line = pl.concat([line, newer])
        elif newer_end > end:
            line = _switch(line, newer)
        end = max(end, newer_end)
    return line


def _end(session: pl.DataFrame, ends: dict[str, datetime]) -> datetime:
    last: datetime = session["received_at"][-1]
    return max(last, ends.get(session["session_id"][0], last))


def _switch(older: pl.DataFrame, newer: pl.DataFrame) -> pl.DataFrame:
    """Return the older line up to the switch, the newer one's state there, then the newer line."""
    at = _latest_agreement(older, newer) or older["received_at"][-1]
    handed_over = (
        newer.filter(pl.col("received_at") <= at)
        .tail(1)
        .with_columns(
            kind=pl.lit(Kind.RESTORE.value),
            received_at=pl.lit(at + _INSTANT).cast(newer.schema["received_at"]),
            event_time=pl.lit(at + _INSTANT).cast(newer.schema["event_time"]),
        )
    )
    return pl.concat(
        [
            older.filter(pl.col("received_at") <= at),
            handed_over,
            newer.filter(pl.col("received_at") > at),
        ]
    )


def _latest_agreement(older: pl.DataFrame, newer: pl.DataFrame) -> datetime | None:
    """Return the latest instant of the overlap at which both last known counters are equal."""
    counter = pl.col("cumulative_volume")
    both = (
        pl.concat(
            [
                older.filter(observes_counter()).select(
                    *RECEIVED, older=counter, newer=pl.lit(None, pl.Float64)
                ),
                newer.filter(observes_counter()).select(
                    *RECEIVED, older=pl.lit(None, pl.Float64), newer=counter
                ),
            ]
        )
        .sort(RECEIVED)
        .with_columns(pl.col("older", "newer").forward_fill())
        .filter(
            pl.col("older") == pl.col("newer"),
            pl.col("received_at") <= older["received_at"][-1],
        )
    )
    latest: datetime | None = both["received_at"].max()  # type: ignore[assignment]  # a time column
    return latest
