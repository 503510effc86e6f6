"""The wish to end, as signals bring it, held back until it can be granted.

For whoever owns an order of ending: the stack its processes, the worker its flush. What is done
about the wish belongs to them.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as a flag, from the first to the last line of the ``with`` block.

    A second signal changes nothing: it must not cut short the flush that the first one began. That
    the signals are handled, not ignored, also gives children their default action back, which a
    shell's ``&`` takes away. Only the main thread hears signals; in another one none ever comes.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> bool:
        return self.first is not None

    def wait(self, seconds: float, *also: int) -> bool:
        """Sleep, but not past a signal, nor once one of the open files *also* has news."""
        select.select([self._bell, *also], [], [], seconds)
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
