"""Market time: the one clock of a feed server.

It starts at a given instant and runs *speed* times as fast as the machine's monotonic clock.
Whatever the server does at a time (prices, heartbeats, faults) it asks this clock.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class MarketClock:
    """Runs from *start* (now when None) at *speed* market seconds a second."""

    def __init__(self, start: datetime | None = None, *, speed: float = 1.0) -> None:
        assert speed > 0
        self.start = start if start is not None else datetime.now(UTC)
        self.speed = speed
        self._origin = time.monotonic()

    def now(self) -> datetime:
        elapsed = time.monotonic() - self._origin
        return self.start + timedelta(seconds=elapsed * self.speed)

    async def sleep(self, length: timedelta) -> None:
        """Sleep for *length* of market time."""
        await asyncio.sleep(length.total_seconds() / self.speed)

    async def sleep_until(self, instant: datetime) -> None:
        """Sleep until market time is *instant*; return at once if it has passed."""
        while (rest := instant - self.now()) > timedelta(0):
            await self.sleep(rest)
