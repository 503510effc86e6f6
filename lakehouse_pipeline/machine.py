"""What this machine knows of its processes that a step of its clock does not change.

The time of day can be set while everything runs, and the time at which a process began is then
told differently. Counted from the machine's start it is not: that, and which start it was, tells
a process from a later one with its number.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_STARTED = 19  # index after the name: field 22 of /proc/PID/stat, in clock ticks


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number.

    ``boot`` names the start of the machine, "" where there is no name for it; ``began`` is opaque
    and only compared.
    """

    pid: int
    boot: str
    began: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has this number now.

        Raises:
            psutil.NoSuchProcess: none has.
        """
        return cls(pid, boot_id(), _began(pid))

    @classmethod
    def current(cls) -> Self:
        return cls.of(os.getpid())

    @property
    def has_its_number(self) -> bool:
        """Whether no other process can have this number now: it runs, or waits to be buried."""
        try:
            return self.boot == boot_id() and _began(self.pid) == self.began
        except psutil.NoSuchProcess:
            return False

    @property
    def alive(self) -> bool:
        try:
            return self.has_its_number and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def of_this_boot(self) -> bool:
        """Whether the machine was not started anew since this process began."""
        return self.boot == boot_id() and (self.boot != "" or self.began > psutil.boot_time())

    def signal(self, number: int) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


@cache
def boot_id() -> str:
    """Return the name of this start of the machine, "" where the system gives none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def uptime() -> float:
    """Return seconds since the machine was started, the same for all its processes.

    Time asleep may not count, and then nothing grows old while nobody can work.
    """
    return time.monotonic()


def _began(pid: int) -> float:
    if not boot_id():
        return psutil.Process(pid).create_time()  # elsewhere it is kept as it was at the start
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return float(stat.rpartition(b")")[2].split()[_STARTED])  # a name may hold anything
