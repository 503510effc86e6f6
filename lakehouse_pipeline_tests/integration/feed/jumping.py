"""An event loop whose time jumps to the next thing due whenever nothing is left to do.

A server and a worker in it play an hour in as long as its work takes, and no stall of a busy
machine looks like an outage. Sockets, spool and lake are real; while a thread works for the loop,
its time stands still.
"""

from __future__ import annotations

import asyncio
import selectors
from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse_pipeline.feedserver import clock as server_clock
from lakehouse_pipeline.ingest import clock as worker_clock
from lakehouse_pipeline.ingest import committer, feed, recording
from lakehouse_pipeline.ingest.lane import Lane

LOOK = 0.001  # real seconds between looks at a thread that works


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time passes only by jumps, and never while ``busy`` threads work for it."""

    def __init__(self) -> None:
        self._now = 0.0
        self.busy = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.busy or timeout is None:
            return super().select(LOOK)
        self._loop.jump(timeout)
        return []


def obey(loop: JumpingLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clocks of server and worker ask *loop*, and *loop* wait for the threads of lanes."""
    told = SimpleNamespace(monotonic=loop.time, monotonic_ns=lambda: int(loop.time() * 1e9))
    for module in (server_clock, worker_clock, committer, feed, recording):
        monkeypatch.setattr(module, "time", told)
    post = Lane.post

    def counted(lane: Lane, function: Any, *args: object) -> Any:
        loop.busy += 1
        future = post(lane, function, *args)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        return future

    def done() -> None:
        loop.busy -= 1

    monkeypatch.setattr(Lane, "post", counted)
