"""A deployment as a user starts it: `lakehouse demo`, on free ports, in a state of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import psutil
import pytest

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.supervision import is_alive, newest_of, workers
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.stack.console import Console
from lakehouse_pipeline.stack.layout import Layout
from lakehouse_pipeline.stack.processes import session_members
from lakehouse_pipeline_tests.conftest import PATIENCE
from lakehouse_pipeline_tests.scripted import Script

RUN_STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
DAYS, MINUTES = 10, 2  # of every exchange's past, for what is built of whole days
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

    def start(self, *arguments: str) -> None:
        """Start the command and return once it has said where its UI is."""
        self._outputs += 1
        self.started = datetime.now(UTC).replace(second=0, microsecond=0)
        self.output_file = self._root / f"output-{self._outputs}.txt"
        with self.output_file.open("wb") as output:
            self.popen = subprocess.Popen(
                [str(Path(sysconfig.get_path("scripts")) / "lakehouse"), "demo", *arguments],
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
                    "LAKEHOUSE_ALERTS__FILE": "logs/alerts.jsonl",
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,
            )
        eventually(self._address, timeout=120)
        self.look()

    def look(self) -> None:
        """Read which children there are now."""
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

    def lakehouse(self, *arguments: object) -> str:
        """Run the command line on this deployment's state and return what it prints."""
        done = subprocess.run(
            [str(Path(sysconfig.get_path("scripts")) / "lakehouse"), *map(str, arguments)],
            env={
                **os.environ,
                "LAKEHOUSE_CONFIG": str(self.config),
                "LAKEHOUSE_STATE_DIR": str(self.state),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ended(self, run_id: str) -> str:
        """Return how a run ended, once it has."""

        def status() -> str | None:
            answer = self.console.ask(RUN_STATUS, id=run_id)["runOrError"]["status"]
            return answer if answer in ("SUCCESS", "FAILURE", "CANCELED") else None

        return str(eventually(status, timeout=120))

    def alerts(self) -> list[dict[str, str]]:
        file = self.state / "logs" / "alerts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def remains(self) -> list[Process]:
        """What still lives of all processes the stack ever started."""
        return [member for child in self.children for member in session_members(child)]

    def child(self, words: str) -> psutil.Process:
        """The child whose command line holds *words*."""
        (found,) = self.children_with(words)
        return found

    def children_with(self, words: str) -> list[psutil.Process]:
        """The living children whose command line holds *words*."""
        living = [psutil.Process(child.pid) for child in self.children if child.alive]
        return [process for process in living if words in " ".join(process.cmdline())]

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


@pytest.fixture(scope="module")
def past(deployment: Deployment) -> list[date]:
    """Ten days of each exchange; see ``record_days``."""
    return record_days(deployment, EXCHANGES, DAYS, back=7)


@pytest.fixture
def long_past(deployment: Deployment) -> list[date]:
    """Days of BINANCE whose backfill takes longer than it takes to cancel it.

    Of no other exchange: the catch-up sensor would build those meanwhile.
    """
    return record_days(deployment, ("BINANCE",), 4 * DAYS, back=7 + DAYS)


def record_days(
    deployment: Deployment, exchanges: tuple[str, ...], count: int, *, back: int
) -> list[date]:
    """Record *exchanges* for two minutes on each of *count* days, the last *back* days ago.

    A week ago they are out of the feed's reach: what repair fetches meanwhile is not of them.
    """
    last = datetime.now(UTC).date() - timedelta(days=back)
    days = [last - timedelta(days=earlier) for earlier in reversed(range(count))]
    recorded = [history(day) for day in days]
    with deployment.lake() as lake:
        for exchange in exchanges:
            here = {
                "exchange": pl.lit(exchange),
                "writer_id": pl.concat_str("writer_id", pl.lit(exchange)),
            }
            symbol = pl.col("symbol").str.replace("BINANCE", exchange)
            quotes = pl.concat([script.quotes for script in recorded])
            marks = pl.concat([script.coverage for script in recorded])
            lake.append("raw.quotes", quotes.with_columns(symbol=symbol, **here))
            lake.append("raw.coverage", marks.with_columns(symbol=symbol, **here))
    return days


def history(day: date) -> Script:
    """A symbol that trades each second for two minutes at noon, in a session that then ends."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    until = MINUTES * 60
    script = Script(start=noon, writer=f"writer-{day}").session(
        f"s-{day}", alive=(0, until + 6), ended=Ending.STOPPED
    )
    script.snapshot(0.5, f"s-{day}", last_price=99.0, cumulative_volume=1000.0, trade=-60)
    for second in range(1, until + 1):
        script.trade(second + 0.3, 100.0 + second % 7, 1000.0 + second, session=f"s-{day}")
    return script


def history_bars(day: date) -> pl.DataFrame:
    """The one-second bars of ``history``."""
    script = history(day)
    window = TimeWindow.of_day(day)
    return build_bars_1s(script.quotes, script.coverage, window, window.end)
