"""Misbehavior on demand, in market time: the seams, and how faults compose.

A `Fault` occurs at a time elapsed since the server started, for a while, perhaps again and again.
At each seam it says what happens meanwhile: at the handshake, to a quote's values, to a text, or
to a connection. The server asks `Faults`, which asks each in turn; it knows no fault by name. The
faults themselves are `fault_kinds`, how they are written `fault_file`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any


class Ending(StrEnum):
    """How a fault ends a connection."""

    DROP = "drop"  # the TCP connection is cut
    BAN = "ban"  # protocol_error, then closed


@dataclass(frozen=True, slots=True)
class Link:
    """What a fault may know of a connection."""

    number: int  # counted from 1
    opened: timedelta  # elapsed market time


@dataclass(kw_only=True)
class Fault:
    """Occurs at *at* for *lasts* (for ever when None), and again every *every*. Does nothing.

    In the seams *since* is the elapsed time at which the present occurrence began: most faults of
    connections strike those that were open then, so that connecting again helps.
    """

    at: timedelta = timedelta(0)
    lasts: timedelta | None = None
    every: timedelta | None = None

    def since(self, elapsed: timedelta) -> timedelta | None:
        """Return when the occurrence of this time began; None between occurrences."""
        if elapsed < self.at:
            return None
        began = self.at if self.every is None else elapsed - (elapsed - self.at) % self.every
        return began if self.lasts is None or elapsed < began + self.lasts else None

    def refuse(self) -> int | None:
        """Return the HTTP status that new connections get."""
        return None

    def redirect(self) -> str | None:
        """Return the host that new connections are sent to."""
        return None

    def refuses(self, token: str) -> bool:  # noqa: ARG002  # most refuse none
        """Say whether *token* is good no more."""
        return False

    def drip(self) -> float | None:
        """Return how many characters a second of market time are sent; None: all at once."""
        return None

    def delay(self) -> timedelta:
        """Return how much later than the market the feed is."""
        return timedelta(0)

    def holds(self, since: timedelta, link: Link, symbol: str) -> bool:  # noqa: ARG002  # most hold nothing
        """Say whether updates of *symbol* are kept back; they follow, merged, when it ends."""
        return False

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # most change nothing
        """Return what is sent instead of *values*, a packet's wire fields."""
        return values

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # most send what is sent
        """Return the websocket messages sent instead of *text*."""
        return [text]

    def ending(self, since: timedelta, link: Link) -> Ending | None:  # noqa: ARG002  # most end nothing
        """Return how *link* ends now."""
        return None


class Faults:
    """All faults of a server."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = tuple(faults)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def refuse(self, elapsed: timedelta) -> int | None:
        statuses = (fault.refuse() for fault, _ in self._occurring(elapsed))
        return next((status for status in statuses if status is not None), None)

    def redirect(self, elapsed: timedelta) -> str | None:
        hosts = (fault.redirect() for fault, _ in self._occurring(elapsed))
        return next((host for host in hosts if host is not None), None)

    def refuses(self, elapsed: timedelta, token: str) -> bool:
        return any(fault.refuses(token) for fault, _ in self._occurring(elapsed))

    def drip(self, elapsed: timedelta) -> float | None:
        rates = (fault.drip() for fault, _ in self._occurring(elapsed))
        return min((rate for rate in rates if rate is not None), default=None)

    def delay(self, elapsed: timedelta) -> timedelta:
        return max((fault.delay() for fault, _ in self._occurring(elapsed)), default=timedelta(0))

    def holds(self, elapsed: timedelta, link: Link, symbol: str) -> bool:
        return any(fault.holds(since, link, symbol) for fault, since in self._occurring(elapsed))

    def quote(self, elapsed: timedelta, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        for fault, _ in self._occurring(elapsed):
            values = fault.quote(symbol, values)
        return values

    def texts(self, elapsed: timedelta, link: Link, text: str) -> list[str]:
        texts = [text]
        for fault, since in self._occurring(elapsed):
            texts = [changed for one in texts for changed in fault.texts(since, link, one)]
        return texts

    def ending(self, elapsed: timedelta, link: Link) -> Ending | None:
        endings = (fault.ending(since, link) for fault, since in self._occurring(elapsed))
        return next((ending for ending in endings if ending is not None), None)

    def _occurring(self, elapsed: timedelta) -> Iterator[tuple[Fault, timedelta]]:
        for fault in self._faults:
            since = fault.since(elapsed)
            if since is not None:
                yield fault, since
