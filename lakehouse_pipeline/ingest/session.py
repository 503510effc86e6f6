"""One quote session: the feed's events in, rows and coverage out. No socket, no clock.

A session lives from the feed's hello to the last frame received on its connection; a reconnect is
a new one. Times are received times in epoch microseconds and never run backwards here. What an
update *means* belongs to ``market.quotes``; what is kept of each symbol to ``line``; which values
are credible to ``credible``; when a symbol counts as stalled to ``cadence``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lakehouse_pipeline.errors import FeedError
from lakehouse_pipeline.market.coverage import LATENESS, Ending, Mark
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

from .cadence import LOOK_EVERY, SHORTEST
from .credible import incredible
from .line import PLACES, Line
from .rows import QUOTES, Entry, mark, reject

SECOND = 1_000_000  # µs
LATENESS_US = int(LATENESS.total_seconds() * SECOND)
# Assumed until the feed has shown its own; longer than any known, shorter than the watchdog.
HEARTBEAT_PERIOD = 20 * SECOND

_TIMES = frozenset({"lp_time", "open_time"})


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
        self._looked = opened_at  # for stalled symbols
        self._lines: dict[str, Line] = {}
        self._heartbeat: tuple[int, int] | None = None  # number and time of the newest
        self._heartbeat_period = HEARTBEAT_PERIOD
        self.longest_pause = HEARTBEAT_PERIOD + LATENESS_US  # between frames of a living feed

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
            self._lines[name] = Line(name, self.session_id)

    def unsubscribe(self, names: Iterable[str], at: int) -> list[Entry]:
        """Expect nothing more of *names*, which end their coverage at *at*."""
        at = max(at, self.last_frame)
        entries = []
        for name in names:
            self._lines.pop(name).awaited = True  # for whoever still holds it
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

    def line(self, name: str) -> Line | None:
        """Return the line of a subscribed symbol."""
        return self._lines.get(name)

    def tick(self) -> list[Entry]:
        """Return the alive mark since the last one, if any frame came; call it once a second."""
        entries: list[Entry] = []
        self._alive(entries)
        return entries

    def stalled(self) -> tuple[list[str], list[Entry]]:
        """Return the symbols silent beyond their own cadence for the first time, and their marks.

        Silence counts up to the last frame: on a dead socket no symbol is stalled. The caller
        subscribes them again; each is reported once until it has data again. Call it once a second;
        it looks, and learns each line's cadence, every few.
        """
        at = self.last_frame
        names: list[str] = []
        entries: list[Entry] = []
        if at - self._looked < LOOK_EVERY:
            return names, entries
        self._looked = at
        for name, line in self._lines.items():
            since = line.last_data
            if since > line.moment:
                line.cadence.learn(since - line.moment)
                line.moment = since
                continue
            if at - since <= SHORTEST or line.awaited or not line.cadence.exceeded(at - since):
                continue
            line.await_again()
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
        if at - self.last_frame > self.longest_pause:
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
        values = {key: value for key, value in event.values.items() if key in PLACES}
        if (doubt := incredible(values, at)) is not None:
            entries.append(self._reject(at, doubt, event))
            return
        for key in _TIMES & values.keys():
            values[key] = _microseconds(values[key])
        self._follow(line, event.name, values, at, entries)
        entries.append((QUOTES, line.merge(values, at)))
        line.description.learn(event.values)
        self._describe(line, event.name, at, entries)

    def _describe(self, line: Line, name: str, at: int, entries: list[Entry]) -> None:
        """Pass on what the feed says the symbol is, once its first load is there whole."""
        if not line.restoring and (facts := line.description.news()) is not None:
            entries.append(mark(self.session_id, Mark.DESCRIBED, at, at, symbol=name, detail=facts))

    def _follow(
        self, line: Line, name: str, values: dict[str, Any], at: int, entries: list[Entry]
    ) -> None:
        """Keep the line's own record: first data, last data, whether it is still being restored."""
        if line.awaited:
            entries.append(mark(self.session_id, Mark.SUBSCRIBED, at, at, symbol=name))
            line.refused = line.awaited = False
            line.moment = at
        line.last_data = at
        if "lp" in values:
            # The first load may come in parts, so it ends with quote_completed; should that be
            # lost, the second price is an update.
            line.restoring = line.restoring and not line.has_price
            line.has_price = True

    def _refused(self, line: Line, event: QuoteUpdate, at: int, entries: list[Entry]) -> None:
        if line.refused:
            return
        line.refused = True
        line.await_again()
        why = event.errmsg or event.status
        entries.append(mark(self.session_id, Mark.REFUSED, at, at, symbol=event.name, reason=why))
        entries.append(self._reject(at, "symbol_refused", event))

    def _other(self, event: Event, at: int, entries: list[Entry]) -> None:
        match event:
            case Heartbeat(number=number):
                if self._heartbeat is not None and self._heartbeat[0] == number - 1:
                    period = max(at - self._heartbeat[1], SECOND)
                    self._heartbeat_period = min(self._heartbeat_period, period)
                    self.longest_pause = self._heartbeat_period + LATENESS_US
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


def _microseconds(seconds: float | None) -> int | None:
    """Return the feed's epoch seconds in microseconds."""
    return None if seconds is None else int(seconds) * SECOND
