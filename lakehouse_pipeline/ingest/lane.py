"""One daemon thread that runs blocking calls for the event loop, in order, one at a time.

Not the loop's own executor: a call that hangs in a dead lake must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Lane:
    """``await lane.run(function, *args)``: its result, from the lane's thread."""

    def __init__(self, name: str) -> None:
        # Any: the queue carries calls of every type; each future gives its own type back in run().
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run ``function(*args)`` after every call asked for before it.

        Canceling the waiter cancels neither the call nor its place in the queue.
        """
        return await asyncio.shield(asyncio.wrap_future(self.post(function, *args)))

    def post(self, function: Callable[..., T], *args: object) -> Future[T]:
        """Ask for a call and do not wait for it."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: function(*args)))
        return future

    def close(self) -> None:
        """Let the thread end after the calls already asked for; do not wait for it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # the waiter gets it, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)
