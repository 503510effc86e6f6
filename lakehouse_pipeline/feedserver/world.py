"""What all connections of a feed server share: the market, its clock and the rules.

State of one client belongs to `connection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .access import Access
from .clock import MarketClock
from .faults import Faults
from .market import Counter, Market

HISTORY = timedelta(days=60)  # a market without a beginning gives this much before the start


class Sent(NamedTuple):
    """A quote packet sent to a client."""

    at: datetime  # market time
    session: str  # of the client's naming
    name: str
    values: dict[str, Any]  # wire values


@dataclass(slots=True)
class World:
    """*position* is the feed time up to which every update has been sent to its subscribers."""

    market: Market
    clock: MarketClock
    counter: Counter
    access: Access
    faults: Faults
    heartbeat: timedelta
    strict: bool
    position: datetime
    sent: list[Sent] | None  # None: nobody asks for it

    def now(self) -> datetime:
        return self.clock.now()

    def elapsed(self) -> timedelta:
        return self.clock.now() - self.clock.start

    @property
    def opens_at(self) -> datetime:
        """The instant before which no bar is given."""
        return self.market.starts_at or self.clock.start - HISTORY

    def snapshot(self, symbol: str) -> dict[str, Any] | None:
        """Return all values of *symbol* at *position*; None when it is not traded here."""
        if symbol not in self.market.instruments():
            return None
        values = self.market.snapshot(symbol, self.position, self.counter)
        values["update_mode"] = self.update_mode()
        return self.faults.quote(self.elapsed(), symbol, values)

    def update_mode(self) -> str:
        delay = self.faults.delay(self.elapsed())
        return f"delayed_streaming_{int(delay.total_seconds())}" if delay else "streaming"
