"""Where a deployment keeps what its processes share, and who owns it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lakehouse_pipeline.errors import EnvironmentFault, StateDirectoryError
from lakehouse_pipeline.machine import Process

DRAIN_MARK = "draining"  # sensors and schedules start nothing while it is there
STATE_FILE = "stack.json"  # the owner and its children, for whoever comes later


class _Owned(msgspec.Struct, frozen=True):
    owner: Process
    children: list[Process]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a deployment keeps what its processes share, all below the state folder."""

    state: Path

    @property
    def dagster_home(self) -> Path:
        return self.state / "dagster"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def drain_mark(self) -> Path:
        return self.state / DRAIN_MARK

    @property
    def state_file(self) -> Path:
        return self.state / STATE_FILE

    def make(self) -> None:
        """Create the folders, and prove that they can be written.

        Raises:
            StateDirectoryError: naming the folder.
        """
        try:
            for folder in (self.dagster_home, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.state / ".writable"
            probe.write_bytes(b"0" * 4096)
            probe.unlink()
        except OSError as error:
            raise StateDirectoryError(
                f"State folder {self.state} cannot be written: {error.strerror}.",
                mend="Mend it or set LAKEHOUSE_STATE_DIR to another one.",
            ) from error

    def refuse_second_owner(self) -> None:
        """Raise EnvironmentFault if another stack works on this state folder."""
        owner, children = self.read_state()
        if owner is not None and owner.alive:
            raise EnvironmentFault(
                f"Process {owner.pid} already runs on {self.state}.",
                mend="Use it, or stop it with `make down`.",
            )
        if any(child.alive for child in children):
            raise EnvironmentFault(
                f"Servers of a killed stack still run on {self.state}.",
                mend="Stop them with `make down`.",
            )

    def read_state(self) -> tuple[Process | None, list[Process]]:
        """Return the owner and the children that the last stack on this folder wrote down."""
        try:
            state = msgspec.json.decode(self.state_file.read_bytes(), type=_Owned)
        except (FileNotFoundError, NotADirectoryError):
            return None, []
        except msgspec.MsgspecError:  # cut off by a power loss, which left no process either
            return None, []
        return state.owner, state.children

    def write_state(self, owner: Process, children: Sequence[Process]) -> None:
        """Write down the owner and its children; a reader sees the old state or the new one."""
        replacement = self.state_file.with_suffix(".new")
        replacement.write_bytes(msgspec.json.encode(_Owned(owner, list(children))))
        replacement.replace(self.state_file)
