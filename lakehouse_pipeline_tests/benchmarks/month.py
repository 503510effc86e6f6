"""A simulated month of the lake: does it stay small and fast by itself?

Three exchanges go through the real spool, sink, ticks, builds and upkeep. The first and the last
day have two hours at production cadence (a commit every 15 seconds, a tick a minute, an update a
second of each symbol); in the days between, whole hours are committed at once and symbols update
every minute. Simulated time only advances as commits are made; nothing waits.

Beside the last quarter of the last day, a lake that has seen nothing else is fed the same commits,
turn by turn, so that "as on the first day" is measured under the same load. Times are CPU times of
this process. Cleaning too goes by the simulated clock, with the guard time of production.
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

from pyiceberg.manifest import clear_manifest_cache
from pyiceberg.table import Table

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.build.upkeep import keep_small, merge_marks, tag_days, travel_days
from lakehouse_pipeline.ingest.rows import QUOTES, TARGETS, mark
from lakehouse_pipeline.ingest.sink import Sink
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.lake.cleaning import apply_cleaning, plan_cleaning
from lakehouse_pipeline.lake.evidence import partitions
from lakehouse_pipeline.lake.folder import list_files
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.manifests import entry_reader
from lakehouse_pipeline.lake.tables import TABLES
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, SECOND, TimeWindow, floor
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.benchmarks.lines import Line

EXCHANGES = ("BINANCE", "OKX", "BYBIT")
FIRST_DAY = datetime(2100, 1, 1, tzinfo=UTC)  # after now: to the cleaner no file is from the future
DAYS = 30
CADENCE = 15 * SECOND
# Of a new lake, not measured: its first commits are cheaper, because few snapshots are there yet.
WARM_UP = 5 * MINUTE  # with three exchanges more commits than snapshots are kept
BETWEEN = MINUTE  # of a symbol's updates in the days between
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


def _end() -> datetime:
    return FIRST_DAY + DAYS * DAY


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
        self.shape = shape
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
        self.tick()  # there is one a minute; it tells that the minutes have read the new seconds
        self.keep(day + DAY)
        tag_days(self.lake, now=day + DAY + HOUR)
        for table in TABLES:
            apply_cleaning(self.lake, plan_cleaning(self.lake, table, now=day + DAY + HOUR))

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
    last_day: datetime = FIRST_DAY  # real time at which it began


def simulate(
    folder: Path, shape: Shape, say: Callable[[str], object]
) -> tuple[World, World, Times]:
    """Run the month; return its lake, the lake of its last day alone, and the commit times."""
    month, times = World(folder / "month", shape), Times()
    begun = time.process_time()

    def told(day: int) -> None:
        say(f"day {day} done, {time.process_time() - begun:.0f} CPU seconds so far")

    last = FIRST_DAY + (DAYS - 1) * DAY
    begin = FIRST_DAY + DAY - shape.production
    _produce([month], TimeWindow(begin - WARM_UP, begin))
    times.production_first = _produce([month], TimeWindow(begin, FIRST_DAY + DAY))[0]
    told(1)
    for number in range(1, DAYS - 1):
        _ordinary_day(month, FIRST_DAY + number * DAY, shape)
        told(number + 1)
    _night(month, last)
    times.last_day = datetime.now(UTC)
    midnight, quarter = last + DAY, floor_minutes(shape.production / 4)
    alone = TimeWindow(midnight - shape.production, midnight - quarter)
    early = _produce([month], alone)[0]
    fresh = World(folder / "fresh", shape)
    _produce([fresh], TimeWindow(midnight - quarter - WARM_UP, midnight - quarter))
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
        yield from _files(lake, table)
        tags = set(lake.tags(table).values())
        untagged = {each.snapshot_id for each in loaded.metadata.snapshots} - tags
        yield Line(f"{table}: snapshots without tags", len(untagged), 50)
        yield Line(f"{table}: tags", len(lake.tags(table)), 14)
        pointer = Path(loaded.metadata_location.removeprefix("file://"))
        yield Line(f"{table}: metadata.json", pointer.stat().st_size / 2**20, 1, "MiB")
    newest = {(_end() - back * DAY).date() for back in range(1, min(DAYS, 14) + 1)}
    yield Line("newest 14 days without a way back", len(newest - set(travel_days(lake))), 0)
    # A smaller month has as much metadata beside fewer rows, and few commits hold files for days.
    limit = 1.2 if month.shape == Shape.of(1) else None
    yield Line("bytes on disk / live bytes", _bytes(lake, times.last_day), limit)
    medians = [statistics.median(each) for each in (times.production_first, times.production_last)]
    yield Line("commit on day 30 / day 1, hours apart", medians[1] / medians[0], 1.3)
    paired = statistics.median(times.production_last[-len(times.fresh) :]) / statistics.median(
        times.fresh
    )
    yield Line("commit on day 30 / in a lake of one day, turn by turn", paired, 1.3)
    yield Line("planning a symbol-day / in a lake of one day", _planning(month, fresh), 1.3)


def _bytes(lake: Lakehouse, last_day: datetime) -> float:
    """Return the bytes of all files, metadata too, over those of live data files.

    Left out is what is not live and was written in the guard time, waits for the guard time to end
    or is held by a tag; what ordinary snapshots hold is not.
    """
    live = on_disk = 0
    for table in TABLES:
        loaded, now = lake.load(table), lake.load(table).current_snapshot()
        data = {file.path: file.bytes for file in lake.live_files(table)}
        live += sum(data.values())
        leads_to = {loaded.metadata_location, *data}
        if now is not None:
            leads_to |= {
                now.manifest_list,
                *(each.manifest_path for each in now.manifests(loaded.io)),
            }
        excused = {file.path for file in plan_cleaning(lake, table, now=_end() + HOUR).waiting}
        for tagged in lake.tags(table).values():
            excused |= _held_by(lake, loaded, tagged)
        for file in list_files(loaded):
            excusable = file.path in excused or file.modified >= last_day
            if file.path in leads_to or not excusable:
                on_disk += file.bytes
    return on_disk / live


def _held_by(lake: Lakehouse, table: Table, snapshot_id: int) -> set[str]:
    """Return the files that a snapshot leads to."""
    snapshot = table.snapshot_by_id(snapshot_id)
    assert snapshot is not None, "a tag holds its snapshot"
    manifests = {each.manifest_path for each in snapshot.manifests(table.io)}
    return {snapshot.manifest_list, *manifests, *(file.path for file in lake.plan(table, snapshot))}


def _files(lake: Lakehouse, table: str) -> Iterator[Line]:
    """Count the files of closed days and hours: of all, and of the partition with the most."""
    found = partitions(lake, table, before=_end()).filter("closed")
    sealed = found.filter(~found["hot"])
    if not sealed.is_empty():
        ratio = found["files"].sum() / sealed.height
        yield Line(f"{table}: files a closed partition", ratio, 1.1)
    over = [row["files"] - row["allowed"] for row in found.iter_rows(named=True)]
    yield Line(f"{table}: files too many, in the worst partition", max(over, default=0), 0)


def _planning(month: World, fresh: World) -> float:
    """Return the ratio of what planning one symbol-day costs a new process."""
    day = TimeWindow.of_day((FIRST_DAY + (DAYS - 1) * DAY).date())
    symbol = month.recorders[0].symbols[0]

    def plan(world: World) -> float:
        # Not ``open``: that has read the table already, and its metadata is a part of planning.
        entry_reader.cache_clear()  # both are of the whole process
        clear_manifest_cache()
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
