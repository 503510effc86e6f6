"""The worker's clock: the machine's own, or the feed's when it runs at another speed.

Everything in received time (rows, alive marks, coverage) asks one of these; nothing else in the
package reads the time, except heartbeats of the process itself, which are about this machine.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from lakehouse_pipeline.settings import ClockSettings


class Clock(Protocol):
    """Received time. ``now`` is aware UTC; lengths of time are the clock's own."""

    @property
    def is_set(self) -> bool:
        """Whether ``now`` can be asked already."""

    @property
    def stepped(self) -> timedelta:
        """How far the machine's clock has been set since the anchor; ``now`` does not follow it."""

    def now(self) -> datetime: ...

    def anchor(self, feed_time: datetime | None) -> None:
        """Begin a session: take the time anew; *feed_time* is the feed's own, if its hello told."""

    async def sleep(self, length: timedelta) -> None: ...


class WallClock:
    """The machine's time at the anchor, and steadily on from there, whatever the feed's hello says.

    Within a session the machine's clock may be set, or the machine may sleep: what was received a
    second later must not be an hour later.
    """

    is_set = True

    def __init__(self) -> None:
        self._anchor()

    @property
    def stepped(self) -> timedelta:
        return datetime.now(UTC) - self.now()

    def now(self) -> datetime:
        return self._start + timedelta(microseconds=(time.monotonic_ns() - self._origin) // 1_000)

    def anchor(self, feed_time: datetime | None) -> None:  # noqa: ARG002  # ours decides what we saw when
        self._anchor()

    def _anchor(self) -> None:
        self._start, self._origin = datetime.now(UTC), time.monotonic_ns()

    async def sleep(self, length: timedelta) -> None:
        await asyncio.sleep(length.total_seconds())


class FeedClock:
    """The feed's time at its hello, and *speed* seconds more for each second since."""

    stepped = timedelta(0)  # the machine's clock is not asked

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start: datetime | None = None
        self._origin = 0.0

    @property
    def is_set(self) -> bool:
        return self._start is not None

    def now(self) -> datetime:
        assert self._start is not None, "the feed has not said hello yet"
        return self._start + timedelta(seconds=(time.monotonic() - self._origin) * self._speed)

    def anchor(self, feed_time: datetime | None) -> None:
        if feed_time is not None:
            self._start = feed_time
            self._origin = time.monotonic()

    async def sleep(self, length: timedelta) -> None:
        await asyncio.sleep(length.total_seconds() / self._speed)


def make_clock(settings: ClockSettings) -> Clock:
    """Return the clock the settings ask for."""
    return FeedClock(settings.speed) if settings.source == "feed" else WallClock()
