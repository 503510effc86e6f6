"""Child processes in sessions of their own: start, look after, stop, leave nothing behind.

A session of its own keeps a terminal's Ctrl-C away from a child, so that one owner decides the
order in which things end. What runs in a child, and in which order, belongs to ``stack``.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from lakehouse_pipeline.errors import EnvironmentFault, PortInUse
from lakehouse_pipeline.machine import Process

POLL = 0.1  # seconds between two looks at a process
QUOTED = 200  # characters of a log in a message
LOG_BYTES = 10 << 20  # a longer log is set aside at the next start


class Child:
    """A server of ours, its log file, and its place in the order of things."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".old.log"))
        with log.open("ab") as output:
            self._start_of_log = output.tell()
            self.popen = subprocess.Popen(  # noqa: S603  # our own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )
        self.process = Process.of(self.popen.pid)

    @property
    def exit_code(self) -> int | None:
        return self.popen.poll()

    def output(self) -> str:
        """Return what this child, not a predecessor, has written so far."""
        with self.log.open("rb") as file:
            file.seek(self._start_of_log)
            return file.read().decode(errors="replace")

    def last_line(self) -> str:
        """Return what it said last, cut to a line's length; "nothing" if it was silent."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        return lines[-1][:QUOTED] if lines else "nothing"

    def obituary(self) -> EnvironmentFault:
        """Return the error that says how the child ended."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        errors = [
            line for line in lines if re.match(r"[\w.]+(Error|Exception|Fault|InUse): ", line)
        ]
        last = f": {(errors or lines)[-1][:QUOTED]}" if lines else ""
        code = self.exit_code
        how = f"was ended by signal {-code}" if code and code < 0 else f"ended with code {code}"
        return EnvironmentFault(f"The {self.name} {how}{last}.", mend=f"Its log is {self.log}.")

    def again(self, env: Mapping[str, str]) -> Child:
        """Start the same command once more."""
        return Child(self.name, self.command, log=self.log, env=env)

    def stop(self, *, patience: float = 15.0) -> None:
        """Ask the child to end, insist after *patience* seconds, and end what it left behind."""
        self.process.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(patience)
        end_session(self.process)
        self.popen.wait()


def end_session(leader: Process) -> None:
    """Kill whatever still runs in the session that *leader* opened."""
    for member in session_members(leader):
        member.signal(signal.SIGKILL)
    wait_until(lambda: not any(True for _ in session_members(leader)), patience=5)


def session_members(leader: Process) -> Iterator[Process]:
    """Yield what lives in the session of *leader*, which itself may have ended.

    Its number is taken as long as the session has members, unless the machine was started anew.
    """
    is_taken = psutil.pid_exists(leader.pid)
    if not (leader.has_its_number if is_taken else leader.of_this_boot):
        return
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader.pid and (member := Process.of(pid)).alive:
                yield member


def wait_until(condition: Callable[[], bool], *, patience: float, poll: float = POLL) -> bool:
    """Return whether *condition* came true within *patience* seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll)
    return True


def choose_port(host: str, port: int, *, setting: str) -> int:
    """Return *port* if nobody listens there, or a free one if it is 0.

    Raises:
        PortInUse: naming *setting*.
    """
    with socket.socket() as probe:
        # As the servers bind; without it a port of connections just closed would seem taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(port, setting=setting) from error
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    try:
        choose_port(host, port, setting="")
    except PortInUse:
        return False
    return True


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
