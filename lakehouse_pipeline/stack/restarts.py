"""When a server that ended by itself is started again: later each time, and not for ever.

Time is passed in; starting belongs to ``stack``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST = 1.0  # seconds from the first end to the next start; doubled with each end after it
LONGEST = 30.0
WITHIN = 600.0  # seconds after which an end is forgotten
MOST = 6  # ends within that time: what fails so often does not mend by itself


@dataclass(slots=True)
class Restarts:
    """The ends of one server within the last ten minutes, in monotonic seconds."""

    ends: list[float] = field(default_factory=list)
    due: float | None = None  # when it is started again; None while it lives

    def ended(self, now: float) -> float | None:
        """Take note of an end; return the seconds until it is started again, None for never."""
        self.ends = [at for at in self.ends if now - at < WITHIN] + [now]
        if len(self.ends) >= MOST:
            return None
        wait = min(FIRST * 2.0 ** (len(self.ends) - 1), LONGEST)
        self.due = now + wait
        return wait
