"""A deployment as a user starts it: `lakehouse demo`, on free ports, in a state of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.supervision import is_alive, newest_of, workers
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.stack.console import Console
from lakehouse_pipeline.stack.layout import Layout
from lakehouse_pipeline.stack.processes import session_members
from lakehouse_pipeline_tests.conftest import PATIENCE

EXCHANGES = ("BINANCE", "OKX", "BYBIT")
YAML = """
exchanges:
  BINANCE: {symbols: [BTCUSDT, ETHUSDT]}
  OKX: {symbols: [BTCUSDT]}
  BYBIT: {symbols: [BTCUSDT]}
"""


class Deployment:
    """One demo stack and how tests look at it."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state" / "demo"
        self.config = root / "exchanges.yaml"
        self.config.write_text(YAML, encoding="utf-8")
        self._root = root
        self._outputs = 0

    def start(self) -> None:
        """Start the command and return once it has said where its UI is."""
        self._outputs += 1
        self.output_file = self._root / f"output-{self._outputs}.txt"
        with self.output_file.open("wb") as output:
            self.popen = subprocess.Popen(
                [str(Path(sysconfig.get_path("scripts")) / "lakehouse"), "demo"],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                env={
                    **os.environ,
                    "LAKEHOUSE_CONFIG": str(self.config),
                    "LAKEHOUSE_STATE_DIR": str(self._root / "state"),
                    "LAKEHOUSE_UI__PORT": "0",
                    "LAKEHOUSE_GRPC__PORT": "0",
                    "LAKEHOUSE_INGEST__COMMIT_INTERVAL": "PT3S",
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,
            )
        eventually(self._address, timeout=120)
        _, self.children = Layout(self.state).read_state()

    def _address(self) -> str | None:
        assert self.popen.poll() is None, self.output
        found = re.search(r"Dagster UI +(\S+)", self.output)
        return found[1] if found else None

    @property
    def output(self) -> str:
        return self.output_file.read_text(encoding="utf-8")

    @property
    def console(self) -> Console:
        address = self._address()
        assert address
        return Console(address)

    def worker(self, exchange: str) -> WorkerStatus | None:
        now = datetime.now(UTC)
        living = [status for status in workers(self.state, exchange) if is_alive(status, now)]
        return newest_of(living)

    def all_durable(self) -> bool:
        found = [self.worker(exchange) for exchange in EXCHANGES]
        return all(status is not None and status.last_durable_at is not None for status in found)

    def lake(self) -> Lakehouse:
        return Lakehouse.open(Settings(state_dir=self.state, config=self.config))

    def remains(self) -> list[Process]:
        """What still lives of all processes the stack ever started."""
        return [member for child in self.children for member in session_members(child)]

    def child(self, words: str) -> psutil.Process:
        """The child whose command line holds *words*."""
        (found,) = [
            process
            for process in map(psutil.Process, (child.pid for child in self.children))
            if words in " ".join(process.cmdline())
        ]
        return found

    def kill_everything(self) -> None:
        """As a power cut does it: no process gets a word."""
        self.popen.kill()
        self.popen.wait()
        for process in self.remains():
            process.signal(signal.SIGKILL)
        eventually(lambda: not self.remains())


def eventually(predicate: Callable[[], object], *, timeout: float = 30.0) -> object:
    deadline = time.monotonic() + timeout * PATIENCE
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"not within {timeout * PATIENCE} s"
        time.sleep(0.2)
    return value


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("demo"))
    deployment.start()
    yield deployment
    deployment.kill_everything()
