"""What a worker says of itself, once a second, in a file that others may read.

The file is about the process, so its times are the machine's. Who judges it is ``supervision``.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from lakehouse_pipeline import __version__


class WorkerStatus(msgspec.Struct, kw_only=True):
    """One worker; ``at`` is when it said so."""

    exchange: str
    writer_id: str
    run_id: str  # of whoever started it; opaque here
    host: str = msgspec.field(default_factory=socket.gethostname)
    pid: int = msgspec.field(default_factory=os.getpid)
    process_created: float = msgspec.field(default_factory=lambda: psutil.Process().create_time())
    started_at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    connected: bool = False
    sessions: int = 0
    symbols: int = 0
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
    lease_expired: bool = False  # it would like to be succeeded
    version: str = __version__  # of the code it runs
    ended: str = ""  # how it ended; empty while it runs


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
