"""Progress: what a writer notes in a table's properties, in one transaction with its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Noted = int | str
# Makes a note of what the property says when the commit lands, so that writers who pass each other
# lose nothing of each other's. None: it is not set.
Renewal = Callable[[str | None], Noted]
Progress = Mapping[str, Noted | Renewal]


def settle(progress: Progress, properties: Mapping[str, str]) -> dict[str, str]:
    """Return the texts that *progress* sets where the table's properties are *properties*."""
    return {
        key: str(noted(properties.get(key)) if callable(noted) else noted)
        for key, noted in progress.items()
    }


def at_least(number: int) -> Renewal:
    """Return a renewal that never lets a number fall."""
    return lambda told: max(int(told or 0), number)
