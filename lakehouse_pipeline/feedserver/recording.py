"""A market of recorded websocket messages, as ``lakehouse feed record`` writes them.

Quote packets are sent again at the time they were received, with the values they had; bars and
tape are those of the prices seen. The counter's kind is the recorded one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from lakehouse_pipeline.errors import InputFileError
from lakehouse_pipeline.tradingview.frames import FrameDecoder
from lakehouse_pipeline.tradingview.messages import QuoteUpdate
from lakehouse_pipeline.tradingview.parsing import parse

from .instruments import Instrument, full_name
from .market import Counter, Update
from .moving import shift
from .tape import HOUR_US, NO_BOOK, SECOND_US, Tape, from_us, to_us
from .ticker import Hour, TapeMarket

SIZE_SCALE = 10**8
_TIMES = ("lp_time", "open_time", "rtc_time")  # fields in epoch seconds


class RecordedLine(msgspec.Struct, omit_defaults=True):
    """One line: a message as received, or a connection ``opened`` or ``closed``."""

    received_at: int  # epoch µs
    session: str
    text: str | None = None
    event: str | None = None


def recording_market(
    path: Path, symbols: Collection[str] = (), *, start: datetime | None = None
) -> RecordingMarket:
    """Return the market in *path*, of *symbols* (all when empty), moved to *start* (`moving`).

    Raises:
        InputFileError: the file is unreadable, or holds no quote of *symbols*.
    """
    quotes: dict[str, _Quotes] = {}
    for at, update in _read(path):
        symbol = full_name(update.name)
        if symbols and symbol not in symbols:
            continue
        recorded = quotes.setdefault(symbol, _Quotes(update.name))
        if recorded.key == update.name:  # a second key of a symbol may have another currency
            recorded.add(at, update.values)
    if not quotes:
        raise InputFileError(f"{path} holds no quotes of these symbols.")
    first = min(recorded.at[0] for recorded in quotes.values())
    moved = shift(start, first, max(recorded.at[-1] for recorded in quotes.values()))
    for recorded in quotes.values():
        recorded.move(moved)
    return RecordingMarket(quotes, starts_at=from_us(first + moved))


@dataclass(slots=True)
class _Quotes:
    """What was recorded of one symbol: when, and which values changed."""

    key: str
    at: list[int] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    _state: dict[str, Any] = field(default_factory=dict)

    def add(self, at: int, values: dict[str, Any]) -> None:
        changed = {
            name: value
            for name, value in values.items()
            if name not in self._state or self._state[name] != value
        }
        if changed:
            self._state |= changed
            self.at.append(max(at, self.at[-1]) if self.at else at)
            self.changes.append(changed)

    def move(self, by: int) -> None:
        self.at = [at + by for at in self.at]
        for changed in self.changes:
            for name in _TIMES:
                if changed.get(name) is not None:
                    changed[name] += by // SECOND_US

    def until(self, at: int) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for changed in self.changes[: bisect_right(self.at, at)]:
            state |= changed
        return state

    def instrument(self, name: str) -> Instrument:
        scale = self._state.get("pricescale")
        return Instrument(name, int(scale) if scale else 100, SIZE_SCALE)

    def tape(self, instrument: Instrument) -> Tape:
        """Return the prices seen, each with the volume counted since the one before."""
        rows: list[tuple[int, int, int]] = []
        state = dict(self.changes[0])  # the first snapshot is what was, not what happened
        for changed in self.changes[1:]:
            before = state.get("volume")
            state |= changed
            if changed.get("lp_time") is None or state.get("lp") is None:
                continue
            after = state.get("volume")
            counted = max(0.0, after - before) if after and before else 0.0
            ticks = round(state["lp"] * instrument.price_scale)
            rows.append((changed["lp_time"] * SECOND_US, ticks, round(counted * SIZE_SCALE)))
        columns = np.array(sorted(rows, key=lambda row: row[0]), np.int64).reshape(-1, 3)
        return Tape(columns[:, 0], columns[:, 1], columns[:, 2], np.ones(len(columns), np.bool_))


class RecordingMarket:
    """A `Market` of what was recorded."""

    def __init__(self, quotes: Mapping[str, _Quotes], *, starts_at: datetime) -> None:
        self.starts_at: datetime | None = starts_at
        self._quotes = quotes
        instruments = {name: recorded.instrument(name) for name, recorded in quotes.items()}
        tapes = {name: quotes[name].tape(instruments[name]) for name in quotes}
        self._seen = TapeMarket(
            instruments,
            lambda name, hour: Hour(tapes[name].cut(hour * HOUR_US, (hour + 1) * HOUR_US), NO_BOOK),
            span=lambda name: _span(tapes[name]),
        )

    def instruments(self) -> Mapping[str, Instrument]:
        return self._seen.instruments()

    def snapshot(self, symbol: str, at: datetime, counter: Counter) -> dict[str, Any]:  # noqa: ARG002  # the recorded one
        return self._quotes[symbol].until(to_us(at))

    def updates(
        self,
        symbol: str,
        since: datetime,
        until: datetime,
        counter: Counter,  # noqa: ARG002  # the recorded one
    ) -> list[Update]:
        recorded = self._quotes[symbol]
        rows = range(
            bisect_right(recorded.at, to_us(since)), bisect_right(recorded.at, to_us(until))
        )
        return [Update(from_us(recorded.at[row]), recorded.changes[row]) for row in rows]

    def bars(self, symbol: str, step: timedelta, start: datetime, end: datetime) -> pl.DataFrame:
        return self._seen.bars(symbol, step, start, end)

    def tape(self, symbol: str, start: datetime, end: datetime) -> pl.DataFrame:
        return self._seen.tape(symbol, start, end)


def _span(tape: Tape) -> range:
    if not len(tape):
        return range(0)
    return range(int(tape.time[0] // HOUR_US), int(tape.time[-1] // HOUR_US) + 1)


def _read(path: Path) -> Iterator[tuple[int, QuoteUpdate]]:
    """Yield the good quote packets of *path* with their time."""
    decoder, frames = msgspec.json.Decoder(RecordedLine), FrameDecoder()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    recorded = decoder.decode(line)
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    raise InputFileError(f"{path} line {number}: {error}.") from error
                for payload in frames.decode(recorded.text or ""):
                    event = parse(payload)
                    if isinstance(event, QuoteUpdate) and event.status == "ok":
                        yield recorded.received_at, event
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}.") from error
