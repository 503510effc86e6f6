"""One connect per host in a given time, over all processes of this machine.

The feed bans who connects too often. Each process reserves the next free moment in a small file
under the state folder and waits for it, so the lock is never held while waiting. Moments are
counted from the machine's start: setting its clock back must keep nobody from connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from lakehouse_pipeline.machine import boot_id, uptime

FURTHEST = timedelta(minutes=10)  # a reservation beyond this is from before another start


class ConnectLimiter:
    """Reservations kept in *folder*, *interval* apart for each host."""

    def __init__(self, folder: Path, interval: timedelta) -> None:
        self._folder = folder
        self._interval = interval.total_seconds()

    async def wait(self, url: str) -> None:
        """Return when this process may connect to the host of *url*."""
        host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(url).netloc)
        delay = await asyncio.to_thread(self._reserve, self._folder / f"{host}.txt", uptime())
        await asyncio.sleep(delay)

    def _reserve(self, path: Path, now: float) -> float:
        """Return how long to wait for the moment reserved."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            last = 0.0
            with contextlib.suppress(ValueError):  # new, or torn by a crash
                boot, moment_before = file.read().rsplit(" ", 1)
                last = float(moment_before) if boot == boot_id() else 0.0
            if last > now + FURTHEST.total_seconds():
                last = 0.0
            moment = max(now, last + self._interval)
            file.truncate(0)
            file.write(f"{boot_id()} {moment:.3f}")
        return moment - now
