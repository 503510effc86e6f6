"""A simulated month of the lake: does it stay small and fast by itself?

Three exchanges go through the real spool, sink, ticks, builds and upkeep. The first and the last
day have two hours at production cadence (a commit every 15 seconds, a tick a minute, an update a
second of each symbol); in the days between, whole hours are committed at once and symbols update
every minute. Simulated time only advances as commits are made; nothing waits.

Beside the last quarter of the last day, a lake that has seen nothing else is fed the same commits,
turn by turn, so that "as on the first day" is measured under the same load. Times are CPU times of
this process. Cleaning has no guard time here, because nobody else writes.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.build.upkeep import keep_small, merge_marks, tag_days
from lakehouse_pipeline.ingest.rows import QUOTES, TARGETS, mark
from lakehouse_pipeline.ingest.sink import Sink
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.lake.cleaning import NO_GUARD, apply_cleaning, plan_cleaning
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.tables import TABLES
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, SECOND, TimeWindow, floor
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.benchmarks.lines import Line

EXCHANGES = ("BINANCE", "OKX", "BYBIT")
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 30
CADENCE = 15 * SECOND
BETWEEN = MINUTE  # of a symbol's updates in the days between
FAR = datetime(2200, 1, 1, tzinfo=UTC)
QUOTE_COLUMNS = TARGETS[QUOTES].columns


@dataclass(frozen=True)
class Shape:
    """How much of the whole month is simulated."""

    symbols: int  # an exchange
    production: timedelta  # on the first and on the last day
    commits: int  # a day between

    @classmethod
    def of(cls, scale: float) -> Shape:
        """Return the month at *scale*; 1 is three exchanges of 20 symbols and two hours."""
        return cls(
            symbols=max(2, round(20 * scale)),
            production=max(10 * MINUTE, floor_minutes(2 * HOUR * scale)),
            commits=max(4, round(24 * scale)),
        )


def floor_minutes(span: timedelta) -> timedelta:
    return MINUTE * (span // MINUTE)


@dataclass
class Recorder:
    """One exchange: makes quotes, spools them, commits them."""

    exchange: str
    symbols: list[str]
    spool: Spool
    sink: Sink
    session: str = ""
    alive_to: datetime | None = None
    updates: int = 0

    def record(self, window: TimeWindow, step: timedelta) -> None:
        """Spool an update of every symbol each *step* of *window*."""
        start, end = _micros(window.start), _micros(window.end)
        entries: list[Any] = []
        session = f"{self.exchange}-{floor(window.start, 6 * HOUR):%d-%H}"
        if session != self.session or self.alive_to != window.start:
            # A lease is six hours; a hole between two windows also needs a new session.
            self.session = session = f"{session}-{window.start:%H%M%S}"
            entries.append(mark(session, Mark.OPENED, start, start))
            entries += [
                mark(session, Mark.SUBSCRIBED, start, start, symbol=name) for name in self.symbols
            ]
        self.session = session
        at, stride = start, step // timedelta(microseconds=1)
        while at < end:
            self.updates += 1
            for index, symbol in enumerate(self.symbols):
                entries.append((QUOTES, self._quote(symbol, index, at)))
            at += stride
        entries.append(mark(session, Mark.ALIVE, start, end))
        self.alive_to = window.end
        self.spool.append(entries)

    def _quote(self, symbol: str, index: int, at: int) -> tuple[Any, ...]:
        price = 100.0 + (self.updates * (index + 3)) % 997 / 100
        row = dict.fromkeys(QUOTE_COLUMNS)
        row |= {
            "symbol": symbol,
            "event_time": at // 1_000_000 * 1_000_000,
            "received_at": at + 300_000,
            "kind": "price",
            "changed": "last_price,last_time,cumulative_volume,bid,ask",
            "last_price": price,
            "last_time": at // 1_000_000 * 1_000_000,
            "cumulative_volume": at % 86_400_000_000 / 1e6 * (index + 1),
            "bid": price - 0.01,
            "ask": price + 0.01,
            "session_id": self.session,
        }
        return tuple(row.values())

    def commit(self) -> float:
        """Bring the spool to the lake; return the CPU seconds it took."""
        begun = time.process_time()
        self.sink.commit(self.spool)
        return time.process_time() - begun


def _micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class World:
    """One lake with its recorders, ticked, finalized and kept by the simulated clock."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.settings = Settings(state_dir=folder, config=folder / "none.yaml")
        self.lake = Lakehouse.open(self.settings)
        self.recorders = []
        for exchange in EXCHANGES:
            names = [f"{exchange}:SYM{number:02}USDT" for number in range(shape.symbols)]
            spool = Spool.create(folder / "spool" / exchange)
            sink = Sink(lambda: self.lake, exchange, max_rows=1_000_000)
            self.recorders.append(Recorder(exchange, names, spool, sink))

    def record(self, window: TimeWindow, step: timedelta) -> list[float]:
        for recorder in self.recorders:
            recorder.record(window, step)
        return [recorder.commit() for recorder in self.recorders]

    def tick(self) -> None:
        for exchange in EXCHANGES:
            watermark = current_watermark(self.lake, exchange)
            assert watermark is not None
            tick_1s(self.lake, exchange, watermark=watermark)
            tick_1m(self.lake, exchange, watermark=watermark)
        merge_marks(self.lake)

    def keep(self, before: datetime) -> None:
        for table in TABLES:
            keep_small(self.lake, table, before=before)

    def finish(self, day: datetime) -> None:
        """What is done in the night after *day*: rebuild it, seal it, tag it, clean."""
        for exchange in EXCHANGES:
            build_day(self.lake, exchange, day.date(), studies=[])
        self.keep(day + DAY)
        tag_days(self.lake, now=day + DAY + HOUR)
        for table in TABLES:
            apply_cleaning(self.lake, plan_cleaning(self.lake, table, now=FAR, guard=NO_GUARD))

    def close(self) -> None:
        for recorder in self.recorders:
            recorder.spool.close()
        self.lake.close()


@dataclass
class Times:
    """CPU seconds of single commits of one lake."""

    production_first: list[float] = field(default_factory=list)
    production_last: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)  # of the lake that knows only the last day


def simulate(
    folder: Path, shape: Shape, say: Callable[[str], object]
) -> tuple[World, World, Times]:
    """Run the month; return its lake, the lake of its last day alone, and the commit times."""
    month, times = World(folder / "month", shape), Times()
    begun = time.process_time()

    def told(day: int) -> None:
        say(f"day {day} done, {time.process_time() - begun:.0f} CPU seconds so far")

    last = FIRST_DAY + (DAYS - 1) * DAY
    times.production_first = _produce(
        [month], TimeWindow(FIRST_DAY + DAY - shape.production, FIRST_DAY + DAY)
    )[0]
    told(1)
    for number in range(1, DAYS - 1):
        _ordinary_day(month, FIRST_DAY + number * DAY, shape)
        told(number + 1)
    _night(month, last)
    midnight, quarter = last + DAY, floor_minutes(shape.production / 4)
    alone = TimeWindow(midnight - shape.production, midnight - quarter)
    early = _produce([month], alone)[0]
    fresh = World(folder / "fresh", shape)
    late, times.fresh = _produce([month, fresh], TimeWindow(midnight - quarter, midnight))
    times.production_last = early + late
    for world in (month, fresh):
        _night(world, midnight)
    told(DAYS)
    return month, fresh, times


def _produce(worlds: list[World], window: TimeWindow) -> list[list[float]]:
    """Record *window* at production cadence, turn by turn in each world; return commit times."""
    times: list[list[float]] = [[] for _ in worlds]
    at = window.start
    while at < window.end:
        for world, commits in zip(worlds, times, strict=True):
            commits.extend(world.record(TimeWindow(at, at + CADENCE), SECOND))
            if (at + CADENCE).second == 0:
                world.tick()
        at += CADENCE
    return times


def _ordinary_day(world: World, day: datetime, shape: Shape) -> None:
    _night(world, day)
    span = DAY / shape.commits
    for number in range(shape.commits):
        begun = day + number * span
        world.record(TimeWindow(max(begun, day + MINUTE), begun + span), BETWEEN)
        world.tick()
        if number % 2:
            # By schedule too an hour settles before it is sealed: the last span waits.
            world.keep(begun)


def _night(world: World, midnight: datetime) -> None:
    """Record the first minute after *midnight*, which closes the day before, and finish that."""
    world.record(TimeWindow(midnight, midnight + MINUTE), SECOND)
    world.tick()
    world.finish(midnight - DAY)


def judge(month: World, fresh: World, times: Times) -> Iterator[Line]:
    """Compare the month's lake with what is promised."""
    lake = month.lake
    for table in TABLES:
        files = lake.files(table)
        if files.is_empty():
            continue
        loaded = lake.load(table)
        closed = files.filter(spec="sealed")
        a_partition = closed.height / max(closed["partition"].n_unique(), 1)
        yield Line(f"{table}: files a closed partition", a_partition, 1.1)
        snapshots = len(loaded.metadata.snapshots)
        tags = len(lake.tags(table))
        yield Line(f"{table}: snapshots without tags", snapshots - tags, 50)
        yield Line(f"{table}: tags", tags, 14)
        pointer = Path(loaded.metadata_location.removeprefix("file://"))
        yield Line(f"{table}: metadata.json", pointer.stat().st_size / 2**20, 1, "MiB")
    yield Line("bytes on disk / live bytes", *_bytes(lake))
    medians = [statistics.median(each) for each in (times.production_first, times.production_last)]
    yield Line("commit on day 30 / day 1, hours apart", medians[1] / medians[0], 1.3)
    paired = statistics.median(times.production_last[-len(times.fresh) :]) / statistics.median(
        times.fresh
    )
    yield Line("commit on day 30 / in a lake of one day, turn by turn", paired, 1.3)
    yield Line("planning a symbol-day / in a lake of one day", _planning(month, fresh), 1.3)


def _bytes(lake: Lakehouse) -> tuple[float, float]:
    """Return on-disk bytes over live bytes, files held by snapshots and tags apart."""
    held = live = on_disk = 0
    for table in TABLES:
        loaded = lake.load(table)
        now = {file.path: file.bytes for file in lake.live_files(table)}
        past = {
            file.path: file.bytes
            for snapshot in loaded.metadata.snapshots
            for file in lake.plan(loaded, snapshot)
        }
        live += sum(now.values())
        held += sum(past.values()) - sum(now.values())
        folder = Path(loaded.location().removeprefix("file://"))
        on_disk += sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    return (on_disk - held) / live, 1.2


def _planning(month: World, fresh: World) -> float:
    """Return the ratio of what planning one symbol-day costs a new process."""
    day = TimeWindow.of_day((FIRST_DAY + (DAYS - 1) * DAY).date())
    symbol = month.recorders[0].symbols[0]

    def plan(world: World) -> float:
        # Not ``open``: that has read the table already, and its metadata is a part of planning.
        with Lakehouse.inspect(world.settings) as lake:
            begun = time.process_time()
            lake.scan("market.bars_1s", window=day, symbols=[symbol])
            return time.process_time() - begun

    pairs = [(plan(month), plan(fresh)) for _ in range(15)]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)


def run(folder: Path, *, scale: float, say: Callable[[str], object]) -> list[Line]:
    """Simulate the month at *scale* below *folder* and judge it."""
    with contextlib.ExitStack() as stack:
        month, fresh, times = simulate(folder, Shape.of(scale), say)
        stack.callback(month.close)
        stack.callback(fresh.close)
        return list(judge(month, fresh, times))
