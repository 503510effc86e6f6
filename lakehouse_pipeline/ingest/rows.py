"""What a spooled row looks like, and the frames made from many of them.

A row is the table's columns in schema order without the three the spool itself knows: exchange,
writer_id and sequence. Times are epoch microseconds, so that a row is plain msgpack. Add a target
here when the worker lands another table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.coverage import Mark

Entry = tuple[str, Sequence[object]]  # (target, row)

QUOTES = "quotes"
COVERAGE = "coverage"
REJECTS = "rejects"
INDICATORS = "indicators"
PIECE = 2_000  # rows made into columns at once
PAYLOAD_LIMIT = 2_000  # characters kept of a refused payload

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KNOWN_BY_SPOOL = ("exchange", "writer_id", "sequence")


@dataclass(frozen=True)
class Target:
    """Where the rows of one kind of entry go."""

    table: str
    schema: pl.Schema

    @property
    def columns(self) -> list[str]:
        """The columns of a row, in order."""
        return [name for name in self.schema if name not in _KNOWN_BY_SPOOL]


# In commit order: quotes before coverage, so that a crash in between shows a false gap at worst.
TARGETS: Mapping[str, Target] = {
    QUOTES: Target("raw.quotes", schemas.QUOTES),
    COVERAGE: Target("raw.coverage", schemas.COVERAGE),
    REJECTS: Target("raw.rejects", schemas.REJECTS),
    INDICATORS: Target("raw.indicators", schemas.RAW_INDICATORS),
}


def micros(instant: datetime) -> int:
    """Return *instant* in epoch microseconds, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def instant(micros: int) -> datetime:
    """Return the aware UTC time of epoch microseconds."""
    return _EPOCH + micros * _MICROSECOND


def mark(
    session_id: str,
    kind: Mark,
    start: int,
    end: int,
    *,
    symbol: str | None = None,
    reason: str | None = None,
    detail: str | None = None,
) -> Entry:
    """Return a coverage entry; *start* and *end* are received times."""
    return COVERAGE, (session_id, kind.value, symbol, start, end, reason, detail)


def reject(
    session_id: str | None,
    received_at: int,
    reason: str,
    payload: str,
    *,
    symbol: str | None = None,
) -> Entry:
    """Return an entry that keeps what was refused, cut to a bearable length."""
    # A lone surrogate is no text and could not be stored.
    kept = payload[:PAYLOAD_LIMIT].encode("utf-8", "replace").decode()
    return REJECTS, (session_id, received_at, symbol, reason, kept)


def session_change(row: Sequence[Any]) -> tuple[str, int | None] | None:
    """Return what a coverage row says of its session: (id, last frame), None for an ended one."""
    session_id, kind, _, _, end, _, _ = row
    if kind == Mark.ENDED:
        return session_id, None
    if kind in (Mark.OPENED, Mark.ALIVE):
        return session_id, end
    return None


def row_times(target: str, row: Sequence[Any]) -> tuple[str | None, int, int]:
    """Return (session, start, end) of a row of any target, in received time."""
    values = dict(zip(TARGETS[target].columns, row, strict=False))  # see _by_column
    if target == COVERAGE:
        return values["session_id"], values["start"], values["end"]
    return values["session_id"], values["received_at"], values["received_at"]


def merge_marks(
    numbered: Iterable[tuple[int, Sequence[Any]]],
) -> list[tuple[int, Sequence[Any]]]:
    """Join marks of a session that touch, alive with alive and shed with shed.

    Takes and returns (sequence, coverage row) in order; a joined row has its last one's number.
    """
    merged: list[tuple[int, Sequence[Any]]] = []
    open_at: dict[tuple[str, str], int] = {}  # (session, kind) → index of its newest mark
    for sequence, row in numbered:
        session_id, kind, symbol, start, end, reason, detail = row
        index = open_at.get((session_id, kind)) if kind in (Mark.ALIVE, Mark.SHED) else None
        if index is not None and merged[index][1][4] == start:
            previous = merged[index][1]
            if kind == Mark.SHED:
                detail = str(int(previous[6]) + int(detail))
            merged[index] = (
                sequence,
                (session_id, kind, symbol, previous[3], end, reason, detail),
            )
            continue
        open_at[session_id, kind] = len(merged)
        merged.append((sequence, row))
    return merged


def build_frame(
    target: Target,
    numbered: Sequence[tuple[int, Sequence[Any]]],
    *,
    exchange: str,
    writer_id: str,
) -> pl.DataFrame:
    """Return (sequence, row) pairs as a frame of the target's schema.

    It is built in pieces: turning rows into columns holds the interpreter, and whoever receives
    quotes meanwhile must get it back within milliseconds.
    """
    pieces = [
        _build_piece(target, numbered[first : first + PIECE], exchange, writer_id)
        for first in range(0, len(numbered), PIECE)
    ]
    return pl.concat(pieces)


def _build_piece(
    target: Target, numbered: Sequence[tuple[int, Sequence[Any]]], exchange: str, writer_id: str
) -> pl.DataFrame:
    columns = _by_column(target, [row for _, row in numbered])
    height = len(numbered)
    series = []
    for name, dtype in target.schema.items():
        match name:
            case "exchange" | "writer_id":
                value = exchange if name == "exchange" else writer_id
                series.append(pl.Series(name, [value], dtype=dtype).new_from_index(0, height))
            case "sequence":
                series.append(pl.Series(name, [number for number, _ in numbered], dtype=dtype))
            case _ if dtype == schemas.UTC_TIME:
                series.append(pl.Series(name, columns[name], dtype=pl.Int64).cast(dtype))
            case _:
                series.append(pl.Series(name, columns[name], dtype=dtype))
    return pl.DataFrame(series)


def _by_column(target: Target, rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return the values of each column.

    A row that an earlier version spooled lacks the columns appended to its table since.
    """
    names = target.columns
    try:
        return dict(zip(names, zip(*rows, strict=True), strict=True))
    except ValueError:
        whole = [(*row, *[None] * (len(names) - len(row))) for row in rows]
        return dict(zip(names, zip(*whole, strict=True), strict=True))
