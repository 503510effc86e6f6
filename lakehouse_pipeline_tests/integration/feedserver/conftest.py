"""A client that knows nothing of this project's code: it frames, parses and waits by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import websockets

PATIENCE = 10.0 * float(os.environ.get("LAKEHOUSE_TEST_TIMEOUT_FACTOR", "1"))
HEADER = re.compile(r"~m~(\d+)~m~")


class Client:
    """Every websocket message must hold one packet, whose length counts UTF-16 units."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.seen: list[Any] = []
        """Packets so far: JSON objects, and heartbeats as text."""
        self.raw: list[str] = []

    async def say(self, method: str, *params: Any) -> None:
        payload = json.dumps({"m": method, "p": params}, separators=(",", ":"))
        await self.socket.send(f"~m~{len(payload)}~m~{payload}")

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            text = await self.socket.recv()
        assert isinstance(text, str), "frames are text"
        self.raw.append(text)
        header = HEADER.match(text)
        assert header is not None, text
        payload = text[header.end() :]
        assert int(header[1]) == len(payload.encode("utf-16-le")) // 2
        packet = payload if payload.startswith("~h~") else json.loads(payload)
        self.seen.append(packet)
        return packet

    async def until(self, method: str, **where: Callable[[Any], bool]) -> Any:
        """Return the parameters of the next *method* packet whose params satisfy ``p=``."""
        accept = where.get("p", lambda _: True)
        while True:
            packet = await self.next()
            if isinstance(packet, dict) and packet.get("m") == method and accept(packet["p"]):
                return packet["p"]

    async def heartbeat(self) -> str:
        while not isinstance(packet := await self.next(), str):
            pass
        return packet

    async def closed(self) -> None:
        """Read until the connection ends."""
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.next()

    def methods(self) -> list[str]:
        return [packet["m"] for packet in self.seen if isinstance(packet, dict) and "m" in packet]


@contextlib.asynccontextmanager
async def _talk(
    url: str, path: str = "/socket.io/websocket?type=chart", **options: Any
) -> AsyncIterator[Client]:
    async with websockets.connect(url + path, max_size=None, **options) as socket:
        yield Client(socket)


@pytest.fixture
def talk() -> Callable[..., contextlib.AbstractAsyncContextManager[Client]]:
    return _talk


@pytest.fixture
def noon() -> datetime:
    return datetime(2026, 3, 2, 12, tzinfo=UTC)
