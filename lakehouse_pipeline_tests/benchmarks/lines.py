"""One measured figure, as every benchmark's ``run`` returns them and ``lakehouse bench`` shows.

A benchmark is a module here with ``run(folder, *, scale, say) -> list[Line]``; scale 1 is the size
its promise speaks of, and its ``test_…`` runs it small.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """What was measured, and the most it may be; no limit where it only informs."""

    what: str
    value: float
    limit: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit holds; None where there is none to hold."""
        return None if self.limit is None else self.value <= self.limit
