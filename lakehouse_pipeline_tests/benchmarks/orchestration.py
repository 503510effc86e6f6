"""What Dagster costs: definitions, a backfill beside the same build by hand, a tick, a whole stack.

The backfill: thirty days of three exchanges with twenty symbols, through the assets' own runs in
one process an exchange, two at a time as dagster.yaml has it, every check included; beside it the
same days by ``lakehouse build``, one exchange after the other and without checks, in a lake of its
own, rows compared. Each symbol has two quotes a minute, a thirtieth of a busy one's, so that all
takes ten minutes: with more, both build longer and what Dagster adds to a day stays as it is.
The stack is ``lakehouse up`` with three streams, against a feed server that does not count, and as
``make up`` installs it: without pandas, which pyarrow would load wherever another benchmark has
brought it. It is measured after it has settled; figures of time need an idle machine.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TypeVar

import polars as pl
import psutil
from polars.testing import assert_frame_equal

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.stack.console import Console, Unanswered
from lakehouse_pipeline_tests.benchmarks.lines import Line
from lakehouse_pipeline_tests.scripted import Script

EXCHANGES = ("BINANCE", "BYBIT", "OKX")
TICKERS = ("BTCUSDT", "ETHUSDT")
DAYS, SYMBOLS, QUOTES_A_DAY = 30, 20, 2_880
FIRST = date(2026, 1, 1)
BACKFILL_RUNS = 2  # at a time: the limit of dagster/backfill in dagster.yaml
TURNS = 5
WATCHED = 120.0  # seconds of a settled stack
TABLES = ("market.bars_1s", "market.bars_1m", "market.gaps", "market.indicators_1m")
TICKS = """
{ runsOrError(filter: {pipelineName: "build_today", statuses: [SUCCESS]}, limit: 50) {
    ... on Runs { results { creationTime startTime endTime } } } }
"""
Found = TypeVar("Found")
COMMAND = [sys.executable, "-m", "lakehouse_pipeline.cli"]


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    return [
        definitions(say),
        *backfill(folder, max(2, round(DAYS * scale)), max(1, round(SYMBOLS * scale)), say),
        *stack(folder / "stack", WATCHED * min(1.0, max(0.25, scale)), say),
    ]


# Definitions.


def definitions(say: Callable[[object], None]) -> Line:
    """Compare the time of loading the definitions with that of ``import dagster``, in turns."""
    turns: dict[str, list[float]] = {"dagster": [], "lakehouse_pipeline.definitions": []}
    for _ in range(TURNS):
        for module, times in turns.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times.append(time.perf_counter() - began)
    best = {module: min(times) for module, times in turns.items()}
    say({module: f"{seconds:.2f} s" for module, seconds in best.items()})
    ratio = best["lakehouse_pipeline.definitions"] / best["dagster"]
    return Line("loading the definitions / import dagster", ratio, 1.4)


# Backfill.


def backfill(folder: Path, days: int, symbols: int, say: Callable[[object], None]) -> list[Line]:
    """Compare a backfill's runs with ``lakehouse build`` of the same days."""
    first, last = str(FIRST), str(FIRST + timedelta(days=days - 1))
    by_hand, by_dagster = folder / "by-hand", folder / "by-dagster"
    for state in (by_hand, by_dagster):
        record(state, days, symbols)
    say(f"recorded; each symbol has {QUOTES_A_DAY} quotes a day")
    build = timed(
        [
            [*COMMAND, "build", "--exchange", name, "--from", first, "--to", last]
            for name in EXCHANGES
        ],
        by_hand,
        at_a_time=1,
    )
    say(f"lakehouse build took {build}")
    # As the stack does before any run: several first starts at once on an empty store fail.
    prepare = [sys.executable, "-m", "lakehouse_pipeline.defs.lifecycle", "prepare"]
    timed([prepare], by_dagster, at_a_time=1)
    dagster = timed(
        [
            [sys.executable, "-m", f"{__package__}.backfill_run", name, first, last]
            for name in EXCHANGES
        ],
        by_dagster,
        at_a_time=BACKFILL_RUNS,
    )
    say(f"the backfill took {dagster}")
    for table in TABLES:
        ours, theirs = stored(by_dagster, table), stored(by_hand, table)
        assert ours.height or table == "market.gaps", f"{table} is empty"
        assert_frame_equal(ours, theirs)
    what = f"backfill of {days} days x {len(EXCHANGES)} x {symbols} / lakehouse build"
    return [
        Line(what, dagster.seconds / build.seconds, 1.5),
        Line("the same in processor time, checks included", dagster.cpu / build.cpu),
    ]


def record(state: Path, days: int, symbols: int) -> None:
    """Land *days* of each exchange: each symbol trades twice a minute, all day."""
    state.mkdir(parents=True)
    (state / "exchanges.yaml").write_text(
        "exchanges: {" + ", ".join(f"{name}: {{symbols: [S0]}}" for name in EXCHANGES) + "}"
    )
    step = 86_400 / QUOTES_A_DAY
    start = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
    script = Script(start=start).session("s1", alive=(0, 86_400 * days + 10), pieces=days)
    script.snapshot(0.5, last_price=99.0, cumulative_volume=0.0, trade=-60)
    for number in range(1, QUOTES_A_DAY):
        script.trade(number * step, 100.0 + number % 7, float(number), trade=number * step - 1)
    day, marks = script.quotes, script.coverage
    every = pl.DataFrame({"n": range(symbols)}, schema={"n": pl.Int64})
    with Lakehouse.open(Settings(state_dir=state)) as lake:
        for exchange in EXCHANGES:
            here = pl.lit(exchange).alias("exchange")
            name = pl.format(f"{exchange}:S{{}}", pl.col("n")).alias("symbol")
            row = pl.col("sequence") * symbols + pl.col("n")
            for back in range(days):
                shift = pl.duration(days=back)
                later = [(pl.col(time) + shift) for time in ("event_time", "received_at")]
                moved = day.with_columns(*later).join(every, how="cross")
                writer = pl.lit(f"writer-{exchange}-{back}").alias("writer_id")
                frame = moved.with_columns(name, here, writer, sequence=row)
                lake.append("raw.quotes", frame.select(day.columns))
            subscribed = marks.filter(pl.col("symbol").is_not_null()).join(every, how="cross")
            named = subscribed.with_columns(name, here).select(marks.columns)
            others = marks.filter(pl.col("symbol").is_null()).with_columns(here)
            lake.append("raw.coverage", pl.concat([others, named]))


@dataclass(frozen=True)
class Took:
    seconds: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.cpu:.1f} s of processors"


def timed(commands: list[list[str]], state: Path, *, at_a_time: int) -> Took:
    """Run *commands* on *state*, in order."""

    def run_one(command: list[str]) -> None:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    env = environment(state)
    began, used = time.perf_counter(), children()
    with ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(run_one, commands))
    return Took(time.perf_counter() - began, children() - used)


def children() -> float:
    """Return the processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment(state: Path) -> dict[str, str]:
    home = state / "dagster"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAKEHOUSE_")}
    return {
        **kept,
        "LAKEHOUSE_STATE_DIR": str(state),
        "LAKEHOUSE_CONFIG": str(state / "exchanges.yaml"),
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def stored(state: Path, table: str) -> pl.DataFrame:
    with Lakehouse.open(Settings(state_dir=state)) as lake:
        rows = lake.scan(table).collect()
    return rows.sort(rows.columns)


# The stack.


def stack(folder: Path, seconds: float, say: Callable[[object], None]) -> list[Line]:
    """Measure three streams, servers and the ticks between them for *seconds*."""
    with started(folder) as (owner, console):
        watch = Watch(owner)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            watch.look()
            time.sleep(1.0)
        done = [run for run in ticks(console) if run["endTime"]]
    taken = [run["endTime"] - run["startTime"] for run in done]
    created = [run["endTime"] - run["creationTime"] for run in done]
    say(f"ticks took {[round(each, 1) for each in sorted(taken)]} s")
    return [
        Line("memory of a stack with three streams, median", median(watch.memory) / 1e9, 1.2, "GB"),
        Line("the same at its most, runs included", max(watch.memory) / 1e9, 1.2, "GB"),
        Line("processor of such a stack, ticks included", watch.share(), 0.3, "cores"),
        Line("a tick's run, start to end, median", median(taken), 12.0, "s"),
        Line("a tick from its request to its end, median", median(created), None, "s"),
    ]


@contextmanager
def started(folder: Path) -> Iterator[tuple[psutil.Process, Console]]:
    """A stack whose streams all run and whose first tick is done: its owner and its console."""
    folder.mkdir()
    config = folder / "exchanges.yaml"
    names = ", ".join(f"{name}: {{symbols: [{', '.join(TICKERS)}]}}" for name in EXCHANGES)
    config.write_text(f"exchanges: {{{names}}}")
    absent = folder / "absent"
    absent.mkdir()
    (absent / "pandas.py").write_text("raise ModuleNotFoundError('pandas', name='pandas')")
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("LAKEHOUSE_")},
        "LAKEHOUSE_STATE_DIR": str(folder),
        "LAKEHOUSE_CONFIG": str(config),
        "LAKEHOUSE_UI__PORT": "0",
        "LAKEHOUSE_GRPC__PORT": "0",
        "LAKEHOUSE_FEED__CONNECT_INTERVAL": "PT0S",
        "LAKEHOUSE_HISTORY__PACE": "PT0S",
        "PYTHONPATH": str(absent),
        "PYTHONUNBUFFERED": "1",
    }
    symbols = ",".join(f"{name}:{ticker}" for name in EXCHANGES for ticker in TICKERS)
    serve = ["feed", "serve", "--port", "0", "--market", "generated", "--symbols", symbols]
    with ExitStack() as ended:
        feed = ended.enter_context(process(serve, folder / "feed.txt", env))
        addresses = {
            "LAKEHOUSE_FEED__URL": said(feed, r"LISTENING (\S+)"),
            "LAKEHOUSE_FEED__HTTP_URL": said(feed, r"HTTP (\S+)"),
        }
        up = ended.enter_context(process(["up"], folder / "up.txt", {**env, **addresses}))
        console = Console(said(up, r"Dagster UI +(\S+)"))
        eventually(lambda: settled(console))
        yield psutil.Process(up.popen.pid), console


@dataclass(frozen=True)
class Running:
    popen: subprocess.Popen[bytes]
    output: Path


@contextmanager
def process(arguments: list[str], output: Path, env: dict[str, str]) -> Iterator[Running]:
    """Run a command of ours, and end it in order."""
    with output.open("wb") as file:
        popen = subprocess.Popen([*COMMAND, *arguments], stdout=file, stderr=file, env=env)
    try:
        yield Running(popen, output)
    finally:
        popen.send_signal(signal.SIGTERM)
        popen.wait(180)


def said(running: Running, pattern: str) -> str:
    """Return what the command says in place of the group of *pattern*, once it has."""

    def look() -> re.Match[str] | None:
        text = running.output.read_text()
        assert running.popen.poll() is None, text
        return re.search(pattern, text)

    return eventually(look)[1]


class Watch:
    """Memory and processor of *owner* and all it starts, ticks that come and go included."""

    def __init__(self, owner: psutil.Process) -> None:
        self._owner = owner
        self._began = time.monotonic()
        self._at_first: dict[int, float] = {}
        self._used: dict[int, float] = {}
        self.memory: list[int] = []
        self._at_first = dict(self._look())

    def look(self) -> None:
        self._used.update(self._look())

    def share(self) -> float:
        spent = sum(used - self._at_first.get(pid, 0.0) for pid, used in self._used.items())
        return spent / (time.monotonic() - self._began)

    def _look(self) -> Iterator[tuple[int, float]]:
        memory = 0
        for process in (self._owner, *self._owner.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                # Shared pages count once: a sum of resident sizes would count Python many times.
                memory += process.memory_full_info().pss
                times = process.cpu_times()
                yield process.pid, times.user + times.system
        self.memory.append(memory)


def settled(console: Console) -> bool:
    """Tell whether all streams run and a tick has been done."""
    try:
        runs = console.runs_since(datetime(1970, 1, 2, tzinfo=UTC))
    except Unanswered:
        return False
    streams = [run for run in runs if run.job == "stream_quotes" and run.status == "STARTED"]
    done = [run for run in runs if run.job == "build_today" and run.status == "SUCCESS"]
    return len(streams) == len(EXCHANGES) and bool(done)


def ticks(console: Console) -> list[dict[str, float]]:
    found: list[dict[str, float]] = console.ask(TICKS)["runsOrError"]["results"]
    return found


def eventually(look: Callable[[], Found | None], *, patience: float = 600.0) -> Found:
    deadline = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.5)
    return found
