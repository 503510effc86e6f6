"""The drain mark: a file that says a stack is stopping, so nothing new may start.

A file, not the sensors' toggles in the UI: those would still be off after the next start.
"""

from __future__ import annotations

from pathlib import Path

DRAIN_MARK = "draining"  # `stack` writes it into the state folder


def drain_reason(state_dir: Path) -> str | None:
    """Return why nothing may be started, or None."""
    return "The stack is stopping." if (state_dir / DRAIN_MARK).exists() else None
