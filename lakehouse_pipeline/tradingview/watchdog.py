"""How a dead socket is noticed: one timer, however many messages come.

A timer for each message would cost more than receiving it. So a wait only notes when it began, and
the one timer, when it fires, looks how old the present wait is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta


class Watchdog:
    """Calls *bite* once a wait has lasted for *patience*; ``has_bitten`` tells it afterward.

    Say ``waits()`` before waiting and ``rests()`` after it. Only waiting counts: a reader that is
    busy with what it has received is not waiting.
    """

    def __init__(self, patience: timedelta, *, bite: Callable[[], object]) -> None:
        self.has_bitten = False
        self._patience = patience.total_seconds()
        self._bite = bite
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.Handle | None = None  # none while nobody has waited for long

    def waits(self) -> None:
        self._since = self._loop.time()
        if self._timer is None:
            self._arm(self._since)

    def rests(self) -> None:
        self._since = None

    def _arm(self, since: float) -> None:
        self._timer = self._loop.call_at(since + self._patience, self._look)

    def _look(self) -> None:
        since, self._timer = self._since, None
        if since is None:
            return
        if self._loop.time() < since + self._patience:
            self._arm(since)
        else:
            # After a loop that stood still, what came meanwhile reaches the reader first.
            self._timer = self._loop.call_soon(self._look_again, since)

    def _look_again(self, since: float) -> None:
        self._timer = None
        if self._since == since:
            self.has_bitten = True
            self._bite()
        elif self._since is not None:
            self._arm(self._since)
