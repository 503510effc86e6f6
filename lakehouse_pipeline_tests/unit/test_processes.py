"""Children of the stack: what they say when they die, and that nothing of them stays."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import PortInUse
from lakehouse_pipeline.interrupts import Interrupts
from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.stack.processes import (
    Child,
    choose_port,
    session_members,
)


@pytest.fixture
def child(tmp_path, request):
    def start(script: str) -> Child:
        child = Child(
            "test server",
            [sys.executable, "-c", script],
            log=tmp_path / "logs" / "test.log",
            env=os.environ,
        )
        request.addfinalizer(child.stop)
        return child

    return start


def test_a_dead_child_says_how_and_why_it_ended(child):
    dead = child("raise ValueError('no such lake')")
    dead.popen.wait()

    assert str(dead.obituary()).startswith(
        "The test server ended with code 1: ValueError: no such lake. Its log is"
    )


def test_a_killed_child_is_said_to_be_killed(child):
    killed = child("input()")
    killed.process.signal(signal.SIGKILL)
    killed.popen.wait()

    assert "was ended by signal 9" in str(killed.obituary())


def test_only_the_childs_own_words_are_quoted(child):
    child("raise ValueError('before')").popen.wait()
    silent = child("raise SystemExit(3)")
    silent.popen.wait()

    assert "before" not in str(silent.obituary())


def test_stopping_a_child_ends_what_it_started(child, eventually_sync):
    parent = child(
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('started', flush=True)\n"
        "input()"
    )
    eventually_sync(lambda: "started" in parent.output() or parent.exit_code is not None)
    assert len(list(session_members(parent.process))) >= 1

    parent.stop()

    assert not list(session_members(parent.process))


def test_a_child_that_ignores_the_wish_is_killed(child, eventually_sync):
    deaf = child(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\n"
        "time.sleep(600)"
    )
    eventually_sync(lambda: "deaf" in deaf.output())

    deaf.stop(patience=0)

    assert deaf.exit_code == -signal.SIGKILL


def test_a_number_used_again_is_another_process():
    me = Process.of(os.getpid())

    assert me.alive
    assert not replace(me, began=me.began - 1).alive
    assert not replace(me, boot="another").alive


def test_a_second_interrupt_changes_nothing():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

        assert interrupts.wait(0)
        assert interrupts.received


def test_a_port_in_use_names_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(PortInUse, match=f"Port {port} is in use.*LAKEHOUSE_UI__PORT"):
            choose_port("127.0.0.1", port, setting="LAKEHOUSE_UI__PORT")


def test_port_zero_means_a_free_one():
    assert choose_port("127.0.0.1", 0, setting="") > 0


BARRAGE = """
import os, signal, threading
from lakehouse_pipeline.interrupts import Interrupts

def shoot():
    for _ in range(2000):
        os.kill(os.getpid(), signal.SIGTERM)

for _ in range(5):
    with Interrupts() as interrupts:
        gun = threading.Thread(target=shoot)
        gun.start()
        while gun.is_alive() or not interrupts.received:
            interrupts.wait(0.001)
        gun.join()
"""


def test_a_barrage_of_signals_never_stops_the_waiter():
    """A handler that took the lock of what it interrupted waited for itself for ever."""
    ended = subprocess.run([sys.executable, "-c", BARRAGE], timeout=30, check=False)

    assert ended.returncode == 0


MAKEFILE = """
wait:
\t@{python} wait.py
"""
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")  # the tests may run under one
WAIT = """
import time
from lakehouse_pipeline.interrupts import Interrupts

with Interrupts() as interrupts:
    print("waits", flush=True)
    end = time.monotonic() + 60
    while not interrupts.wait(0.2) and time.monotonic() < end:
        pass
print("interrupted" if interrupts.received else "left alone", flush=True)
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="there is no /proc here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_make_alone_stops_what_make_runs(number, tmp_path):
    make = run_make(tmp_path, ignore_interrupts=False)
    assert make.stdout is not None
    with make.stdout as output:
        assert output.readline() == b"waits\n"

        make.send_signal(number)

        assert output.readline() == b"interrupted\n"
    assert make.wait() != 0


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_a_make_in_the_background_which_never_heard_interrupts_has_not_had_one(tmp_path):
    make = run_make(tmp_path, ignore_interrupts=True)
    assert make.stdout is not None
    with make.stdout as output:
        assert output.readline() == b"waits\n"
        assert not select.select([output], [], [], 1.0)[0], output.readline()

        make.send_signal(signal.SIGTERM)

        assert output.readline() == b"interrupted\n"
    assert make.wait() != 0


def run_make(folder: Path, *, ignore_interrupts: bool) -> subprocess.Popen[bytes]:
    """Run what waits for an interrupt; a script's ``&`` makes its commands ignore SIGINT."""
    (folder / "Makefile").write_text(MAKEFILE.format(python=sys.executable))
    (folder / "wait.py").write_text(WAIT)
    before = signal.getsignal(signal.SIGINT)
    if ignore_interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(
            ["make", "--no-print-directory", "wait"],
            cwd=folder,
            stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name not in OF_MAKE},
        )
    finally:
        signal.signal(signal.SIGINT, before)
