"""What a worker says of itself, once a second, in a file that others may read.

The file is about the process, so its times are the machine's; what is compared is its uptime,
which no step of its clock changes. Who judges it is ``supervision``.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from lakehouse_pipeline import __version__
from lakehouse_pipeline.machine import Process, uptime


class WorkerStatus(msgspec.Struct, kw_only=True):
    """One worker; ``at`` is when it said so."""

    exchange: str
    writer_id: str
    run_id: str  # of whoever started it; opaque here
    host: str = msgspec.field(default_factory=socket.gethostname)
    process: Process  # without a default: another version's file must not seem to be ours
    began: float  # the machine's uptime when it was made
    beat: float  # the machine's uptime at ``at``
    started_at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    connected: bool = False
    sessions: int = 0
    symbols: int = 0  # wanted
    receiving: int = 0  # of which this session has durable data
    frames: int = 0
    quotes: int = 0  # spooled by this process
    rejects: int = 0
    shed: int = 0
    pending: int = 0  # spooled and not yet committed
    last_durable_at: datetime | None = None  # received time of the newest spooled row
    last_commit_at: datetime | None = None
    last_commit_sequence: int = 0
    feed_error: str = ""  # empty while all is well
    lake_error: str = ""
    studies_lacking: int = 0  # charts and studies refused or not answered, and not given since
    study_error: str = ""  # why studies that settings choose are not asked for
    lease_expired: bool = False  # it would like to be succeeded
    version: str = __version__  # of the code it runs
    ended: str = ""  # how it ended; empty while it runs

    @classmethod
    def begin(cls, exchange: str, writer_id: str, run_id: str) -> Self:
        """Return the status of a worker that starts now, in this process."""
        now = uptime()
        return cls(
            exchange=exchange,
            writer_id=writer_id,
            run_id=run_id,
            process=Process.current(),
            began=now,
            beat=now,
        )

    @property
    def is_of_this_machine(self) -> bool:
        """Whether its uptimes are ours."""
        return self.host == socket.gethostname() and self.process.of_this_boot

    @property
    def troubles(self) -> list[str]:
        """What is wrong, the worst first; empty while all is well."""
        return [*filter(None, (self.feed_error, self.lake_error)), *self.study_troubles]

    @property
    def study_troubles(self) -> list[str]:
        """What is wrong with the feed's studies, beside which quotes are recorded all the same."""
        lacking = f"charts and studies the feed does not give: {self.studies_lacking}"
        return [*filter(None, [self.study_error, lacking if self.studies_lacking else ""])]

    def is_newer_than(self, other: WorkerStatus) -> bool:
        """Tell which of two workers was started later, on one machine whatever its clock did."""
        if self.is_of_this_machine and other.is_of_this_machine:
            return self.began > other.began
        return self.started_at > other.started_at

    def touch(self) -> None:
        """Say that it is now."""
        self.at, self.beat = datetime.now(UTC), uptime()


def heartbeat_folder(state_dir: Path) -> Path:
    return state_dir / "workers"


def heartbeat_path(state_dir: Path, exchange: str, writer_id: str) -> Path:
    return heartbeat_folder(state_dir) / f"{exchange}.{writer_id}.json"


def write_status(state_dir: Path, status: WorkerStatus) -> None:
    """Replace the worker's file; a reader sees the old one or the new one, whole."""
    path = heartbeat_path(state_dir, status.exchange, status.writer_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(status))
    temporary.replace(path)
