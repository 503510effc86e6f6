"""The texts waiting for one client, bounded without ever dropping the client.

A reader slower than its feed gets fewer quote packets with the same content: while the box is full,
the sessions keep what changed (see `quote_session`) and send it in one packet when there is room.
"""

from __future__ import annotations

import asyncio
from collections import deque

ROOM = 2_000  # texts


class Outbox:
    """A queue with an end: ``async for text in outbox`` stops after `finish` or `abandon`."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._ended = False
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def full(self) -> bool:
        return len(self._texts) >= ROOM

    def put(self, text: str) -> None:
        if self._ended:
            return
        self._texts.append(text)
        self._changed.set()
        if self.full:
            self._drained.clear()

    def finish(self) -> None:
        """End after what is in the box."""
        self._ended = True
        self._changed.set()
        self._drained.set()

    def abandon(self) -> None:
        """End now."""
        self._texts.clear()
        self.finish()

    async def room(self) -> None:
        """Wait until the box is not full: who does not read is not answered."""
        await self._drained.wait()

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> str:
        while not self._texts:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        text = self._texts.popleft()
        if not self.full:
            self._drained.set()
        return text
