"""A container's code server: ends what a crash left behind, and drains before it ends itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.stack.processes import choose_port, listens, session_members
from lakehouse_pipeline.stack.stack import PROJECT, python
from lakehouse_pipeline_tests.conftest import PATIENCE

YAML = "exchanges: {OKX: {symbols: [BTCUSDT]}}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
    (tmp_path / "exchanges.yaml").write_text(YAML, encoding="utf-8")
    return home


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = choose_port("127.0.0.1", 0, setting="")
    popen = subprocess.Popen(
        [
            *python("lakehouse_pipeline.stack.code_server", "-h", "127.0.0.1", "-p", str(port)),
            *("--location-name", "lakehouse"),
        ],
        env={
            **os.environ,
            "DAGSTER_HOME": str(home),
            "LAKEHOUSE_STATE_DIR": str(tmp_path / "state"),
            "LAKEHOUSE_CONFIG": str(tmp_path / "exchanges.yaml"),
        },
    )
    yield popen, port
    popen.kill()
    popen.wait()


def eventually(holds: Callable[[], object], *, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout * PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_ends_dead_runs_serves_and_leaves_nothing_behind(home, request, tmp_path):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        dead = instance.add_run(
            dg.DagsterRun(job_name="stream_quotes", status=dg.DagsterRunStatus.STARTED)
        )
        mark = tmp_path / "state" / "draining"
        mark.parent.mkdir()
        mark.touch()  # a container that was killed while it drained

        popen, port = request.getfixturevalue("server")
        eventually(lambda: listens("127.0.0.1", port))
        (child,) = [Process.of(each.pid) for each in psutil.Process(popen.pid).children()]

        assert instance.get_run_by_id(dead.run_id).status == dg.DagsterRunStatus.FAILURE
        assert not mark.exists()

    popen.send_signal(signal.SIGTERM)

    assert popen.wait(60 * PATIENCE) == 0
    assert not list(session_members(child))
    assert not mark.exists()
