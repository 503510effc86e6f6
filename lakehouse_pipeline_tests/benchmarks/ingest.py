"""What one worker takes, how soon it is safe and readable, and what decoding costs.

The load: 300 symbols of a feed server in a process of its own, through the real worker into a real
lake. Decoding: the same frames through the worker's way to a row, through tradingview-scraper's
own loop, and through ``orjson.loads`` of the bare payloads; the three take turns. Ratios are time
over time, so less is better.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.market import Counter
from lakehouse_pipeline.feedserver.quote_session import encode as encode_values
from lakehouse_pipeline.ingest.express import Express
from lakehouse_pipeline.ingest.rows import QUOTES, TARGETS, micros
from lakehouse_pipeline.ingest.session import SECOND, SessionRecorder
from lakehouse_pipeline.ingest.sink import CommitReport
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.ingest.worker import record
from lakehouse_pipeline.settings import ExchangeSettings, FeedSettings, Settings
from lakehouse_pipeline.tradingview.frames import encode
from lakehouse_pipeline.tradingview.messages import QuoteCompleted, QuoteUpdate
from lakehouse_pipeline_tests.benchmarks.lines import Line

SYMBOLS = 300
MINUTES, TURNS = 10, 100
RATE = 5_500  # updates a second that are sent; more is never asked for
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
RECEIVED_AT = TARGETS[QUOTES].columns.index("received_at")


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    return [
        *decoding(say),
        *asyncio.run(load(folder / "load", timedelta(minutes=MINUTES) * scale, say)),
    ]


# Decoding.


def decoding(say: Callable[[object], None]) -> list[Line]:
    import orjson

    market = generated_market(pace=20)
    names = list(market.instruments())[:10]
    updates = sorted(
        (update.at, name, update.values)
        for name in names
        for update in market.updates(name, NOON, NOON + timedelta(minutes=3), Counter.SESSION)
    )
    session = "qs_ghawpkpyhwuj"
    payloads = [
        f'{{"m":"qsd","p":["{session}",{{"n":"{name}","s":"ok","v":{encode_values(values)}}}]}}'
        for _, name, values in updates
    ]
    frames, bare = [encode(one) for one in payloads], [one.encode() for one in payloads]
    times = [micros(at) for at, _, _ in updates]
    seconds: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for frame, at in zip(frames, times, strict=True):
        seconds[at // SECOND].append((frame, at))

    def ours() -> float:
        recorder = restored(session, names, times[0])
        receive = Express(session, recorder).receive
        began = time.thread_time()
        for second in seconds.values():
            for frame, at in second:
                if receive(frame, at) is None:
                    raise AssertionError(frame)
            if recorder.stalled()[0]:  # as the worker asks once a second: cadences are learnt here
                raise AssertionError("a busy symbol stalled")
        return time.thread_time() - began

    def orjson_alone() -> float:
        began = time.thread_time()
        for one in bare:
            orjson.loads(one)
        return time.thread_time() - began

    turns: dict[str, list[float]] = {"ours": [], "peer": [], "orjson": []}
    for _ in range(TURNS):
        turns["ours"].append(ours())
        turns["peer"].append(peer(frames))
        turns["orjson"].append(orjson_alone())
    best = {name: min(found) / len(frames) * 1e6 for name, found in turns.items()}
    say({name: f"{value:.2f} µs" for name, value in best.items()})
    return [
        Line("decode + merge + row / tradingview-scraper", best["ours"] / best["peer"], 1 / 2.5),
        Line("decode + merge + row / orjson.loads", best["ours"] / best["orjson"], 1 / 0.4),
    ]


def restored(session: str, names: list[str], at: int) -> SessionRecorder:
    recorder = SessionRecorder("s", opened_at=at - SECOND)
    recorder.subscribe(names)
    for name in names:
        values = {"lp": 1.0, "lp_time": at // SECOND, "volume": 1.0}
        completed = QuoteCompleted(session, name)
        update = QuoteUpdate(session, name, "ok", values, "")
        recorder.receive([update, completed], at - SECOND)
    return recorder


def peer(frames: list[str]) -> float:
    """Drive the published package's own receiving loop from memory, without its pauses."""
    # Importing it takes the interrupt's handler and turns all debug logs on.
    interrupt, level, handlers = signal.getsignal(signal.SIGINT), logging.root.level, []
    handlers += logging.root.handlers
    from tradingview_scraper.symbols.stream import price

    signal.signal(signal.SIGINT, interrupt)
    logging.root.setLevel(level)
    logging.root.handlers = handlers

    price.sleep = lambda _: None
    stream: Any = object.__new__(price.RealTimeData)
    stream.ws = _Memory(frames)
    received = stream.get_data()
    began = time.thread_time()
    for _ in frames:
        next(received)
    elapsed = time.thread_time() - began
    received.close()
    return elapsed


class _Memory:
    """A socket whose messages have all arrived."""

    def __init__(self, frames: list[str]) -> None:
        self.recv = iter(frames).__next__

    def close(self) -> None:
        pass


# Load.


async def load(folder: Path, length: timedelta, say: Callable[[object], None]) -> list[Line]:
    names = [f"X:S{number:03}USDT" for number in range(SYMBOLS)]
    command = [sys.executable, "-m", f"{__package__}.load_server", str(RATE), *names]
    server = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().strip()
        settings = Settings(
            state_dir=folder,
            config=folder / "exchanges.yaml",
            feed=FeedSettings(url=url, connect_timeout=timedelta(seconds=60)),
            exchanges={"X": ExchangeSettings(symbols=[name[2:] for name in names])},
        )
        watch = await _watched(settings, length)
    finally:
        server.terminate()
        await server.communicate()
    say(watch.describe())
    return watch.lines()


class _Latencies:
    """How many rows took how many milliseconds; its size does not grow with their number."""

    def __init__(self) -> None:
        self.counts = np.zeros(120_000, dtype=np.int64)

    def add(self, seconds: np.ndarray) -> None:
        milliseconds = np.clip(seconds * 1e3, 0, len(self.counts) - 1).astype(np.int64)
        self.counts += np.bincount(milliseconds, minlength=len(self.counts))

    def quantile(self, share: float) -> float:
        """Return the seconds within which *share* of the rows were done."""
        total = np.cumsum(self.counts)
        return float(np.searchsorted(total, share * total[-1])) / 1e3


class _Watch:
    """When rows were received, durable and readable; how much memory it took."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.began = asyncio.Event()
        self.rows = 0  # durable
        self.batches: deque[tuple[int, np.ndarray]] = deque()  # last sequence, received at (s)
        self.spooled, self.readable = _Latencies(), _Latencies()
        self.memory: list[int] = []  # bytes, one a second

    def appended(self, last: int, entries: Any) -> None:
        now = time.time()
        received = np.array([row[RECEIVED_AT] for kind, row in entries if kind == QUOTES]) / 1e6
        self.rows += len(received)
        self.batches.append((last, received))
        self.spooled.add(now - received)

    def committed(self, report: CommitReport) -> None:
        now = time.time()
        while self.batches and self.batches[0][0] <= report.last_sequence:
            self.readable.add(now - self.batches.popleft()[1])

    def describe(self) -> str:
        return f"{self.rate:,.0f} updates/s, {self.memory[-1] >> 20} MB"

    def lines(self) -> list[Line]:
        count = len(self.memory)
        third = max(self.memory[count * 2 // 10 : max(1, count * 3 // 10)])
        last = max(self.memory[count * 9 // 10 :])
        return [
            Line("5,000 updates/s / those taken", 5_000 / self.rate, 1.0),
            Line("received to spooled, p99", self.spooled.quantile(0.99), 0.5, "s"),
            Line("received to readable, p95", self.readable.quantile(0.95), 20.0, "s"),
            Line("memory, the last tenth / the third", last / third, 1.05),
        ]


async def _watched(settings: Settings, length: timedelta) -> _Watch:
    watch, append, loop = _Watch(), Spool.append, asyncio.get_running_loop()

    def appending(spool: Spool, entries: Any) -> int:
        last = append(spool, entries)
        watch.appended(last, entries)
        loop.call_soon_threadsafe(watch.began.set)
        return last

    Spool.append = appending  # type: ignore[method-assign]  # put back below
    stop, process = asyncio.Event(), psutil.Process()
    worker = asyncio.create_task(record(settings, "X", stop=stop, on_commit=watch.committed))
    try:
        await asyncio.wait_for(watch.began.wait(), timeout=120)
        began, rows = time.monotonic(), watch.rows
        end = began + length.total_seconds()
        while time.monotonic() < end and not worker.done():
            watch.memory.append(process.memory_info().rss)
            await asyncio.sleep(1)
        watch.rate = (watch.rows - rows) / (time.monotonic() - began)
    finally:
        stop.set()
        await worker
        Spool.append = append  # type: ignore[method-assign]
    return watch
