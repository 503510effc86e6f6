"""Is an exchange being recorded, and if not, may a worker start now?

Judged by the workers' own heartbeats, because a scheduler believes dead runs to be running after a
machine crash. Reading files is here in two thin functions; the decision is pure.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from lakehouse_pipeline import __version__
from lakehouse_pipeline.machine import uptime

from .heartbeat import WorkerStatus, heartbeat_folder, heartbeat_path

log = structlog.get_logger()

STALE = timedelta(seconds=15)
FORGIVEN = timedelta(hours=1)  # failures older than this do not count
FIRST_WAIT = timedelta(seconds=10)  # after the second failure; the first is replaced at once
LONGEST_WAIT = timedelta(minutes=5)
BAN_WAIT = timedelta(hours=6)  # for a person to look; deleting the failure file ends it
KEPT_FAILURES = 20


class Failure(msgspec.Struct, frozen=True):
    """A worker that ended without being told to."""

    at: datetime
    reason: str
    banned: bool = False
    run_id: str = ""  # whose failure it was; the same one may be known from elsewhere


@dataclass(frozen=True)
class Start:
    """No worker lives and nothing speaks against a new one."""


@dataclass(frozen=True)
class Keep:
    """This worker is recording."""

    status: WorkerStatus


@dataclass(frozen=True)
class Wait:
    """No worker lives, and it is too early for the next."""

    until: datetime
    reason: str


def decide(
    living: Sequence[WorkerStatus], failures: Sequence[Failure], now: datetime
) -> Start | Keep | Wait:
    """Return what to do for one exchange."""
    newest = newest_of(living)
    if newest is not None and not is_due(newest):
        return Keep(newest)
    # A successor that fails must be waited for like any other worker.
    if (wait := _wait(failures, now)) is not None:
        return wait
    return Start() if newest is None else Keep(newest)


def newest_of(living: Iterable[WorkerStatus]) -> WorkerStatus | None:
    """Return the worker that was started last."""
    newest = None
    for status in living:
        if newest is None or status.is_newer_than(newest):
            newest = status
    return newest


def _wait(failures: Sequence[Failure], now: datetime) -> Wait | None:
    # One that is yet to happen is from before the clock was set back.
    past = [failure for failure in failures if now - FORGIVEN < failure.at <= now]
    recent = sorted(past, key=lambda failure: failure.at)
    bans = [failure for failure in failures if failure.banned and failure.at > now - BAN_WAIT]
    if bans:
        last = max(bans, key=lambda failure: failure.at)
        return Wait(last.at + BAN_WAIT, f"banned by the feed: {last.reason}")
    if len(recent) < 2:
        return None
    pause = min(FIRST_WAIT * 2 ** (len(recent) - 2), LONGEST_WAIT)
    until = recent[-1].at + pause
    if now >= until:
        return None
    return Wait(until, f"failed {len(recent)} times within the hour, last: {recent[-1].reason}")


def workers(state_dir: Path, exchange: str) -> list[WorkerStatus]:
    """Return every worker of *exchange* that has left a heartbeat, dead ones included."""
    statuses = []
    for path in sorted(heartbeat_folder(state_dir).glob(f"{exchange}.*.json")):
        try:
            statuses.append(msgspec.json.decode(path.read_bytes(), type=WorkerStatus))
        except (FileNotFoundError, msgspec.MsgspecError):
            continue  # being removed, or of another version: not alive for us
    return [status for status in statuses if status.exchange == exchange]


def is_alive(status: WorkerStatus, now: datetime) -> bool:
    """Tell whether the worker's process is the one it was and has spoken lately."""
    if status.ended:
        return False
    if status.host != socket.gethostname():
        return now - status.at <= STALE  # in another container only the file's age can tell
    silent = uptime() - status.beat
    return 0 <= silent <= STALE.total_seconds() and status.process.alive


def is_due(status: WorkerStatus) -> bool:
    """Tell whether a living worker should be succeeded: its lease is over, or its code is old."""
    return status.lease_expired or status.version != __version__


def failures(state_dir: Path, exchange: str, now: datetime) -> list[Failure]:
    """Return the recorded failures, and workers that vanished without a word."""
    dead = [status for status in workers(state_dir, exchange) if not is_alive(status, now)]
    return _recorded(state_dir, exchange) + _vanished(dead)


def bury_the_dead(state_dir: Path, exchange: str, now: datetime) -> None:
    """Turn heartbeats of vanished workers into recorded failures; drop all that ended."""
    dead = [status for status in workers(state_dir, exchange) if not is_alive(status, now)]
    for failure in _vanished(dead):
        log.warning("worker_vanished", exchange=exchange, reason=failure.reason)
        record_failure(state_dir, exchange, failure)
    for status in dead:
        heartbeat_path(state_dir, exchange, status.writer_id).unlink(missing_ok=True)


def record_failure(state_dir: Path, exchange: str, failure: Failure) -> None:
    """Remember a failure for the next decisions."""
    kept = [*_recorded(state_dir, exchange), failure][-KEPT_FAILURES:]
    path = _failure_path(state_dir, exchange)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(kept))
    temporary.replace(path)


def _vanished(dead: Sequence[WorkerStatus]) -> list[Failure]:
    return [
        Failure(
            at=status.at,
            reason=f"process {status.process.pid} ended without a word",
            run_id=status.run_id,
        )
        for status in dead
        if not status.ended
    ]


def _recorded(state_dir: Path, exchange: str) -> list[Failure]:
    try:
        return msgspec.json.decode(
            _failure_path(state_dir, exchange).read_bytes(), type=list[Failure]
        )
    except (FileNotFoundError, msgspec.MsgspecError):
        return []  # never failed, or written by another version


def _failure_path(state_dir: Path, exchange: str) -> Path:
    return heartbeat_folder(state_dir) / f"{exchange}-failures.json"
