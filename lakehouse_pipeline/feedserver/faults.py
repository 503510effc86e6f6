"""Misbehavior on demand, in market time.

A `Fault` is active in a span of the time elapsed since the server started. Each says at one seam
what happens then: at the handshake, to a quote's values, to a text, or to a connection. Faults
compose: the server asks `Faults`, which asks each in turn. Add a fault as a class in the table
`KINDS`; nothing else in the server knows any fault by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

NEVER = timedelta.max


class Ending(StrEnum):
    """How a connection is ended by a fault."""

    DROP = "drop"  # the TCP connection is cut
    BAN = "ban"  # protocol_error, then closed


@dataclass(frozen=True, slots=True)
class Link:
    """What a fault may know of a connection: its number from 1, and when it opened (elapsed)."""

    number: int
    opened: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Active in ``[at, at + lasts)`` of the elapsed market time; does nothing by itself."""

    at: timedelta = timedelta(0)
    lasts: timedelta = NEVER

    def active(self, elapsed: timedelta) -> bool:
        return self.at <= elapsed and (self.lasts == NEVER or elapsed < self.at + self.lasts)

    def refuse(self) -> int | None:
        """Return the HTTP status new connections get."""
        return None

    def delay(self) -> timedelta:
        """Return how late the feed is."""
        return timedelta(0)

    def holds(self, link: Link, symbol: str) -> bool:  # noqa: ARG002  # most hold nothing
        """Say whether updates of *symbol* are kept back; they follow, merged, when it ends."""
        return False

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # most change nothing
        """Return what is sent instead of *values*."""
        return values

    def texts(self, link: Link, text: str) -> list[str]:  # noqa: ARG002  # most send what is sent
        """Return the websocket messages sent instead of *text*."""
        return [text]

    def ending(self, link: Link, since: timedelta) -> Ending | None:  # noqa: ARG002  # most end nothing
        """Return how *link* ends now; *since* is when it was last asked."""
        return None


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults of a server, at an elapsed time."""

    faults: Sequence[Fault] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.faults)

    def refuse(self, elapsed: timedelta) -> int | None:
        statuses = (fault.refuse() for fault in self._active(elapsed))
        return next((status for status in statuses if status is not None), None)

    def delay(self, elapsed: timedelta) -> timedelta:
        return max((fault.delay() for fault in self._active(elapsed)), default=timedelta(0))

    def holds(self, elapsed: timedelta, link: Link, symbol: str) -> bool:
        return any(fault.holds(link, symbol) for fault in self._active(elapsed))

    def quote(self, elapsed: timedelta, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        for fault in self._active(elapsed):
            values = fault.quote(symbol, values)
        return values

    def texts(self, elapsed: timedelta, link: Link, text: str) -> list[str]:
        texts = [text]
        for fault in self._active(elapsed):
            texts = [changed for one in texts for changed in fault.texts(link, one)]
        return texts

    def ending(self, elapsed: timedelta, link: Link, since: timedelta) -> Ending | None:
        endings = (fault.ending(link, since) for fault in self._active(elapsed))
        return next((ending for ending in endings if ending is not None), None)

    def _active(self, elapsed: timedelta) -> Iterable[Fault]:
        return (fault for fault in self.faults if fault.active(elapsed))
