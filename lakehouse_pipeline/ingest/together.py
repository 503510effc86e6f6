"""Coroutines side by side with one end: the structure of the worker's tasks.

Unlike a task group, what comes out is the first error itself: the errors of a worker's parts are
told apart by type, and there is never more than one that matters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def until_first_ends(*parts: Coroutine[Any, Any, object]) -> None:
    """Run *parts* until one ends; cancel the others, wait for them, then raise its error if any."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
