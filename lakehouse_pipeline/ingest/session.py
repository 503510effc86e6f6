"""One quote session: the feed's events in, rows and coverage out. No socket, no clock.

A session lives from the feed's hello to the last frame received on its connection; a reconnect is
a new one. Times are received times in epoch microseconds and never run backwards here. What an
update *means* belongs to ``market.quotes``; which values are credible to ``credible``; when a
symbol counts as stalled to ``cadence``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from lakehouse_pipeline.errors import FeedError
from lakehouse_pipeline.market.coverage import LATENESS, Ending, Mark
from lakehouse_pipeline.market.quotes import COLUMNS, OBSERVING, changed_columns, classify
from lakehouse_pipeline.market.schemas import QUOTES as QUOTE_SCHEMA
from lakehouse_pipeline.tradingview.messages import (
    CriticalFailure,
    Event,
    Heartbeat,
    Malformed,
    ProtocolFailure,
    QuoteCompleted,
    QuoteUpdate,
    Unknown,
    to_error,
)
from lakehouse_pipeline.tradingview.state import QuoteState

from .cadence import Cadence
from .credible import DAY, Credible, incredible
from .description import Description
from .rows import QUOTES, Entry, mark, reject

SECOND = 1_000_000  # µs
LATENESS_US = int(LATENESS.total_seconds() * SECOND)
# Assumed until the feed has shown its own; longer than any known, shorter than the watchdog.
HEARTBEAT_PERIOD = 20 * SECOND

# The wire keys a row keeps, in the order of its columns.
_WIRE_KEYS = sorted(COLUMNS, key=lambda key: list(QUOTE_SCHEMA).index(COLUMNS[key]))
_KEPT = frozenset(_WIRE_KEYS)
_TIMES = frozenset({"lp_time", "open_time"})
_CLOCKS_APART = DAY * SECOND  # the feed's clock and ours differ by less


class _Line:
    """One symbol on this session."""

    __slots__ = (
        *("cadence", "description", "has_price", "last_data", "moment", "refused", "restoring"),
        *("stalled", "state", "values"),
    )

    def __init__(self) -> None:
        self.state = QuoteState()  # its times in microseconds
        self.state.merge(dict.fromkeys(_WIRE_KEYS))
        self.values = self.state.values  # in the order of a row's columns
        self.cadence = Cadence()
        self.description = Description()
        self.last_data: int | None = None  # None until the first data after a subscription
        self.moment = 0  # when the cadence last learnt; what comes within a second is one moment
        self.restoring = True
        self.has_price = False
        self.refused = False
        self.stalled = False


class SessionRecorder:
    """Turns the events of one session into entries for the spool, in order.

    ``fault`` is set when the feed refused the session or ends the connection; the caller then
    closes it and passes the reason to ``ended``.
    """

    def __init__(self, session_id: str, *, opened_at: int) -> None:
        self.session_id = session_id
        self.fault: FeedError | None = None
        self.last_frame = opened_at
        self.marked_until = opened_at  # end of the newest alive mark
        self._lines: dict[str, _Line] = {}
        self._heartbeat: tuple[int, int] | None = None  # number and time of the newest
        self._heartbeat_period = HEARTBEAT_PERIOD
        self._longest_pause = HEARTBEAT_PERIOD + LATENESS_US  # between frames of a living feed

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols subscribed on this session."""
        return frozenset(self._lines)

    def opened(self, detail: str) -> list[Entry]:
        """Return the mark of the session's begin."""
        at = self.last_frame
        return [mark(self.session_id, Mark.OPENED, at, at, detail=detail)]

    def subscribe(self, names: Iterable[str]) -> None:
        """Expect data of *names*; their coverage begins with it."""
        for name in names:
            self._lines[name] = _Line()

    def unsubscribe(self, names: Iterable[str], at: int) -> list[Entry]:
        """Expect nothing more of *names*, which end their coverage at *at*."""
        at = max(at, self.last_frame)
        entries = []
        for name in names:
            del self._lines[name]
            entries.append(mark(self.session_id, Mark.UNSUBSCRIBED, at, at, symbol=name))
        return entries

    def receive(self, events: Sequence[Event], at: int) -> list[Entry]:
        """Return the entries for the events of one websocket message."""
        entries: list[Entry] = []
        at = self._frame_at(at, entries)
        for event in events:
            if event.__class__ is QuoteUpdate:
                assert isinstance(event, QuoteUpdate)
                self._quote(event, at, entries)
            else:
                self._other(event, at, entries)
        return entries

    def receive_usual(self, name: str, values: Credible, at: int) -> list[Entry] | None:
        """Return what ``receive`` would for an update read by itself, or None: ask ``receive``.

        Only where nothing but a row comes of it; *values* is then used up.
        """
        line = self._lines.get(name)
        if line is None or line.restoring or line.stalled or line.last_data is None:
            return None
        if not 0 <= at - self.last_frame <= self._longest_pause:
            return None
        last_time = values.get("lp_time")
        if last_time is not None:
            last_time *= SECOND
            if last_time > at + _CLOCKS_APART:
                return None
            values["lp_time"] = last_time
        if "open_time" in values:
            return None  # a new day, or a static re-send
        if at - line.moment >= SECOND:
            line.cadence.learn(at - line.moment)
            line.moment = at
        self.last_frame = line.last_data = at
        state = line.values
        state.update(values)
        return [(QUOTES, _row(name, state, _usual_meaning(*values), at, self.session_id))]

    def tick(self) -> list[Entry]:
        """Return the alive mark since the last one, if any frame came; call it once a second."""
        entries: list[Entry] = []
        self._alive(entries)
        return entries

    def stalled(self) -> tuple[list[str], list[Entry]]:
        """Return the symbols silent beyond their own cadence for the first time, and their marks.

        Silence counts up to the last frame: on a dead socket no symbol is stalled. The caller
        subscribes them again; each is reported once until it has data again.
        """
        at = self.last_frame
        names, entries = [], []
        for name, line in self._lines.items():
            since = line.last_data
            if since is None or line.stalled or not line.cadence.exceeded(at - since):
                continue
            line.stalled = True
            line.restoring, line.has_price = True, False
            names.append(name)
            entries.append(mark(self.session_id, Mark.STALLED, since, at, symbol=name))
        return names, entries

    def ended(self, reason: Ending, detail: str | None = None) -> list[Entry]:
        """Return the marks of the session's end, which is its last received frame."""
        entries = self.tick()
        at = self.last_frame
        entries.append(
            mark(self.session_id, Mark.ENDED, at, at, reason=reason.value, detail=detail)
        )
        return entries

    def _frame_at(self, at: int, entries: list[Entry]) -> int:
        """Note a received frame; a silence no live feed keeps breaks the coverage."""
        at = max(at, self.last_frame)
        if at - self.last_frame > self._longest_pause:
            self._alive(entries)
            self.marked_until = at
        self.last_frame = at
        return at

    def _alive(self, entries: list[Entry]) -> None:
        if self.last_frame > self.marked_until:
            entries.append(mark(self.session_id, Mark.ALIVE, self.marked_until, self.last_frame))
            self.marked_until = self.last_frame

    def _quote(self, event: QuoteUpdate, at: int, entries: list[Entry]) -> None:
        line = self._lines.get(event.name)
        if line is None:
            entries.append(self._reject(at, "not_subscribed", event))
            return
        if event.status != "ok":
            self._refused(line, event, at, entries)
            return
        values = {key: value for key, value in event.values.items() if key in _KEPT}
        if (doubt := incredible(values, at)) is not None:
            entries.append(self._reject(at, doubt, event))
            return
        for key in _TIMES & values.keys():
            values[key] = _microseconds(values[key])
        self._follow(line, event.name, values, at, entries)
        meaning = _meaning(line.state.merge(values), line.restoring)
        entries.append((QUOTES, _row(event.name, line.values, meaning, at, self.session_id)))
        line.description.learn(event.values)
        self._describe(line, event.name, at, entries)

    def _describe(self, line: _Line, name: str, at: int, entries: list[Entry]) -> None:
        """Pass on what the feed says the symbol is, once its first load is there whole."""
        if not line.restoring and (facts := line.description.news()) is not None:
            entries.append(mark(self.session_id, Mark.DESCRIBED, at, at, symbol=name, detail=facts))

    def _follow(
        self, line: _Line, name: str, values: dict[str, Any], at: int, entries: list[Entry]
    ) -> None:
        """Keep the line's own record: first data, cadence, whether it is still being restored."""
        if line.last_data is None or line.stalled:
            entries.append(mark(self.session_id, Mark.SUBSCRIBED, at, at, symbol=name))
            line.refused = line.stalled = False
            line.moment = at
        elif at - line.moment >= SECOND:
            line.cadence.learn(at - line.moment)
            line.moment = at
        line.last_data = at
        if "lp" in values:
            # The first load may come in parts, so it ends with quote_completed; should that be
            # lost, the second price is an update.
            line.restoring = line.restoring and not line.has_price
            line.has_price = True

    def _refused(self, line: _Line, event: QuoteUpdate, at: int, entries: list[Entry]) -> None:
        if line.refused:
            return
        line.refused = True
        why = event.errmsg or event.status
        entries.append(mark(self.session_id, Mark.REFUSED, at, at, symbol=event.name, reason=why))
        entries.append(self._reject(at, "symbol_refused", event))

    def _other(self, event: Event, at: int, entries: list[Entry]) -> None:
        match event:
            case Heartbeat(number=number):
                if self._heartbeat is not None and self._heartbeat[0] == number - 1:
                    period = max(at - self._heartbeat[1], SECOND)
                    self._heartbeat_period = min(self._heartbeat_period, period)
                    self._longest_pause = self._heartbeat_period + LATENESS_US
                self._heartbeat = number, at
            case QuoteCompleted(name=name):
                if (line := self._lines.get(name)) is not None:
                    line.restoring = False
                    self._describe(line, name, at, entries)
            case ProtocolFailure() | CriticalFailure():
                self.fault = to_error(event)
                entries.append(reject(self.session_id, at, "refused_by_feed", str(self.fault)))
            case Malformed(reason=flaw, text=text):
                entries.append(reject(self.session_id, at, f"malformed_{flaw}", text))
            case Unknown(method=method, payload=payload):
                entries.append(reject(self.session_id, at, "unknown_message", payload or method))
            case _:
                pass  # hello, and the chart messages nobody asks for on this connection

    def _reject(self, at: int, reason: str, event: QuoteUpdate) -> Entry:
        payload = f"{event.status} {event.errmsg} {event.values}"
        return reject(self.session_id, at, reason, payload, symbol=event.name)


_Meaning = tuple[str, bool, str]  # the kind, whether it happened at lp_time, what it carried


@lru_cache(maxsize=4096)  # a feed uses a few dozen sets of keys
def _meaning(changed: frozenset[str], restoring: bool) -> _Meaning:  # noqa: FBT001  # cache key
    kind = classify(changed, restoring=restoring)
    return kind.value, kind in OBSERVING, changed_columns(changed)


@lru_cache(maxsize=4096)  # and always in the same order
def _usual_meaning(*changed: str) -> _Meaning:
    return _meaning(frozenset(changed), restoring=False)


def _row(
    name: str, values: dict[str, Any], meaning: _Meaning, at: int, session_id: str
) -> tuple[object, ...]:
    kind, happened, changed = meaning
    event_time = at
    if happened and (last_time := values["lp_time"]) is not None:
        event_time = last_time
    return (name, event_time, at, kind, changed, *values.values(), session_id)


def _microseconds(seconds: float | None) -> int | None:
    """Return the feed's epoch seconds in microseconds."""
    return None if seconds is None else int(seconds) * SECOND
