"""What must hold whoever is killed, as every programme's table states it: law, bound, met or not.

A law is named by what breaks it, so that its bound is 0. One under which nothing was examined has
not been shown to hold, and fails like a broken one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BOUND = 0


@dataclass(frozen=True)
class Law:
    """How much was examined under a law, and how much of it broke the law."""

    what: str
    examined: int
    broken: int

    @property
    def verdict(self) -> str:
        """``met``, ``not met`` or ``not judged``."""
        if self.broken > BOUND:
            return "not met"
        return "met" if self.examined else "not judged"


def all_met(laws: Iterable[Law]) -> bool:
    return all(law.verdict == "met" for law in laws)


def as_table(laws: Iterable[Law]) -> Iterator[str]:
    """Yield the lines of the table, its heading first."""
    yield f"{'law':50} {'examined':>9} {'broken':>7} {'bound':>6}"
    for law in laws:
        yield f"{law.what:50} {law.examined:9} {law.broken:7} {BOUND:6} {law.verdict}"
