"""A worker against a real feed server and a real lake, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from lakehouse_pipeline.feedserver.faults import Fault
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.sink import CommitReport
from lakehouse_pipeline.ingest.supervision import workers
from lakehouse_pipeline.ingest.worker import record
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import (
    ClockSettings,
    ExchangeSettings,
    FeedSettings,
    IngestSettings,
    Settings,
)
from lakehouse_pipeline_tests.integration.feed.jumping import JumpingLoop, obey

SYMBOLS = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]
SPEED = 8.0  # feed seconds a second of the loop's


def worker_settings(
    state_dir: Path,
    url: str,
    symbols: list[str],
    *,
    speed: float | None = None,
    silence: timedelta | None = None,
    ingest: dict[str, Any] | None = None,
) -> Settings:
    """Settings of one exchange; with *speed*, in the feed's own time."""
    exchange = symbols[0].split(":")[0]
    tickers = [symbol.split(":")[1] for symbol in symbols]
    clock = ClockSettings() if speed is None else ClockSettings(source="feed", speed=speed)
    return Settings(
        state_dir=state_dir,
        config=state_dir / "exchanges.yaml",
        feed=FeedSettings(
            url=url,
            connect_interval=timedelta(0),
            connect_timeout=timedelta(seconds=10),
            # In the worker's clock; here the server may be busy for a second of real time.
            silence_timeout=silence or timedelta(seconds=10) * (speed or 1),
        ),
        clock=clock,
        ingest=IngestSettings(
            **{
                "commit_interval": timedelta(seconds=1),
                "group_commit": timedelta(milliseconds=50),
                **(ingest or {}),
            }
        ),
        exchanges={exchange: ExchangeSettings(symbols=tickers)},
    )


@dataclass
class RunningWorker:
    settings: Settings
    exchange: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reports: list[CommitReport] = field(default_factory=list)

    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def status(self):
        """What the worker said last, in its heartbeat file."""
        (status,) = self.statuses()
        return status

    def statuses(self) -> list[WorkerStatus]:
        written = workers(self.settings.state_dir, self.exchange)
        return [status for status in written if status.run_id == self.run_id]

    @property
    def quotes_committed(self) -> int:
        return sum(
            report.commits["raw.quotes"].rows
            for report in self.reports
            if "raw.quotes" in report.commits
        )

    def table(self, name: str) -> pl.DataFrame:
        with Lakehouse.open(self.settings) as lake:
            return lake.scan(name).collect().sort("writer_id", "sequence")


@contextlib.asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[RunningWorker]:
    """Run a worker until its first heartbeat; on leaving, stop it and wait for its end."""
    (exchange,) = settings.exchanges
    worker = RunningWorker(settings, exchange)
    task = asyncio.create_task(
        record(
            settings,
            exchange,
            run_id=worker.run_id,
            stop=worker.stop,
            on_commit=worker.reports.append,
        )
    )
    try:
        while not task.done():
            if worker.statuses():
                break
            await asyncio.sleep(0.01)
        yield worker
    finally:
        worker.stop.set()
        await task


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    return worker_settings


@pytest.fixture
def run() -> Callable[..., contextlib.AbstractAsyncContextManager[RunningWorker]]:
    return running_worker


@pytest.fixture(scope="session")
def market():
    """One market for all tests that need no other: its first hour is made once."""
    return generated_market(pace=20)


@pytest.fixture
def jumping_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[JumpingLoop]:
    """The loop for a server and a worker that no busy machine must disturb."""
    with contextlib.closing(JumpingLoop()) as loop:
        obey(loop, monkeypatch)
        yield loop


@pytest.fixture
def play(
    tmp_path: Path, market, make_settings, run, eventually, jumping_loop
) -> Callable[..., Any]:
    """Record *symbols* through faults until *enough*; return what landed and was sent."""

    def start(
        troubles: list[Fault],
        enough: Callable[[Any], object] = lambda worker: worker.quotes_committed > 60,
        silence: timedelta | None = None,
        speed: float = SPEED,
        symbols: Sequence[str] = SYMBOLS,
        **feed: Any,
    ) -> SimpleNamespace:
        async def scenario():
            async with FeedServer(market, speed=speed, faults=troubles) as server:
                settings = make_settings(
                    tmp_path, server.url, [*symbols], speed=speed, silence=silence
                )
                if feed:
                    update = settings.feed.model_copy(update=feed)
                    settings = settings.model_copy(update={"feed": update})
                began = server.now()
                async with run(settings) as worker:
                    await eventually(lambda: enough(worker), timeout=40)
                tables = {
                    name: worker.table(f"raw.{name}") for name in ("quotes", "rejects", "coverage")
                }
                return SimpleNamespace(**tables, server=server, began=began, status=worker.status)

        return jumping_loop.run_until_complete(scenario())

    return start
