"""The chart sessions of one client: symbols, series, their history and live bars."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from .world import World


class ChartSessions:
    def __init__(self, outlet: object, world: World) -> None:
        self._outlet = outlet
        self._world = world

    def symbols(self) -> Iterator[str]:
        yield from ()

    def push(self, symbol: str, at: datetime) -> None:
        pass

    async def handle(self, method: str, params: list[Any]) -> None:
        pass
