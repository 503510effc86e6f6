"""The wish to end, as signals bring it, held back until it can be granted.

For whoever owns an order of ending: the stack its processes, the worker its flush. What is done
about the wish belongs to them.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAKES = ("make", "gmake")


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as a flag, from the first to the last line of the ``with`` block.

    A second signal changes nothing: it must not cut short the flush that the first one began. That
    the signals are handled, not ignored, also gives children their default action back, which a
    shell's ``&`` takes away. Only the main thread hears signals; in another one none ever comes.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        self._make = make_above()

    @property
    def received(self) -> bool:
        return self.first is not None

    def wait(self, seconds: float, *also: int) -> bool:
        """Sleep, but not past a signal, nor once one of the open files *also* has news."""
        select.select([self._bell, *also], [], [], seconds)
        if self.first is None and self._make and waits_after_interrupt(self._make):
            self.first = signal.SIGINT
        return self.received

    def pass_on(self) -> None:
        """Send the first signal again, after the block: whoever handled it before does now."""
        if self.first is not None:
            signal.raise_signal(self.first)

    def __enter__(self) -> Self:
        # A handler runs between any two steps of what it interrupts, so it must not take a lock
        # (an Event's would wait for itself): it sets a flag and rings through a pipe.
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._rope, False)
        if threading.current_thread() is threading.main_thread():
            for number in HELD:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup: it shall survive its terminal
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._bell)
        os.close(self._rope)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.first is None:
            self.first = signal.Signals(number)
            os.write(self._rope, b"!")


def make_above() -> int | None:
    """Return the process number of the make that runs us and catches SIGINT, if one does.

    One that a script has put into the background ignores SIGINT from the start.
    """
    parent = os.getppid()
    try:
        name = Path(f"/proc/{parent}/comm").read_text("utf-8").strip()
    except OSError:  # no such folder on this system
        return None
    return parent if name in MAKES and not waits_after_interrupt(parent) else None


def waits_after_interrupt(make: int) -> bool:
    """Tell whether *make* has had a SIGINT and waits for its children to end of the same.

    A terminal sends it to all of them, but whoever stops make by its number reaches make alone. It
    does not pass SIGINT on; it only no longer catches it.
    """
    try:
        status = Path(f"/proc/{make}/status").read_text("utf-8")
    except OSError:  # it has ended: somebody killed it, which asks nothing of us
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return not int(caught.split()[1], 16) & 1 << (signal.SIGINT - 1)
