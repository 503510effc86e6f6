"""`lakehouse down`: stop a stack that was started elsewhere, or what a killed one left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from lakehouse_pipeline.errors import EnvironmentFault
from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.settings import Settings

from .layout import Layout
from .processes import end_session, session_members, wait_until
from .stack import DRAIN_PATIENCE, drain

OWNER_PATIENCE = DRAIN_PATIENCE + 90  # seconds; it drains, then stops each server


def down(settings: Settings, *, say: Callable[[str], None] = print) -> int:
    """Stop the stack that works on this state folder, wherever it was started.

    Returns:
        The exit code: 0, or 1 if a run had to be killed.

    Raises:
        EnvironmentFault: if its owner does not end.
    """
    layout = Layout(settings.resolved().state_dir)
    owner, children = layout.read_state()
    if owner is not None and owner.alive:
        say(f"Stopping process {owner.pid} …")
        owner.signal(signal.SIGTERM)
        if not wait_until(lambda: not owner.alive, patience=OWNER_PATIENCE):
            raise EnvironmentFault(
                f"Process {owner.pid} still runs.", mend=f"See the logs in {layout.logs}."
            )
        say("Stopped.")
    elif any(True for child in children for _ in session_members(child)):
        say("Its owner was killed; stopping what it left behind …")
        if not _stop_orphans(layout, children):
            say("Stopped; a run had to be killed. What it held is safe in its spool.")
            return 1
        say("Stopped.")
    else:
        say(f"Nothing runs on {layout.state}.")
    return 0


def _stop_orphans(layout: Layout, children: list[Process]) -> bool:
    layout.drain_mark.touch()
    drained = drain(layout, {**os.environ, "DAGSTER_HOME": str(layout.dagster_home)})
    for child in reversed(children):
        child.signal(signal.SIGTERM)
        wait_until(lambda child=child: not child.alive, patience=15)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        end_session(child)
    layout.drain_mark.unlink(missing_ok=True)
    layout.state_file.unlink(missing_ok=True)
    return drained
