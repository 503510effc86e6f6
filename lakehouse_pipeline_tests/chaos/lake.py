"""Everything that changes or reads a lake, at once, from separate processes that are killed.

Recorders append numbered quotes, builders overwrite minutes of bars, and sealing, compaction,
expiry and cleaning go on beside them, as do readers. Now and then a process is killed (SIGKILL)
wherever it happens to be, and started again. The laws:

* of each recorder every reader sees the numbers 1 to n, each once, and n never falls;
* of each minute every reader sees the rows of one overwrite, whole, and never an earlier one;
* at the end nothing is lost or doubled, every kept snapshot reads as one that was published, and
  after a last cleaning the folders hold what the tables refer to and nothing else.

``python -m lakehouse_pipeline_tests.chaos.lake --seconds 600 --seed 7`` runs it and prints a table.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from pyiceberg.table import Table

from lakehouse_pipeline.errors import CommitConflict
from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import (
    NO_GUARD,
    apply_cleaning,
    plan_cleaning,
    reachable_files,
)
from lakehouse_pipeline.lake.folder import list_files
from lakehouse_pipeline.lake.health import examine
from lakehouse_pipeline.lake.maintenance import Budget, compact, expire, seal, tag_day
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.telemetry import configure_logging
from lakehouse_pipeline_tests.chaos.laws import Law, all_met, as_table

QUOTES, BARS = "raw.quotes", "market.bars_1m"
START = datetime(2026, 1, 31, 10, tzinfo=UTC)
CLOSED = START + 30 * DAY
SYMBOLS = [f"BINANCE:S{number}" for number in range(4)]
ROWS = 40  # of one append
MINUTES = 6  # that are overwritten again and again
# Longer than a commit with its retries, or a reader's frame, lives here; in production it is a day.
GUARD = timedelta(seconds=45)
KEPT = 12
EVERY = 2.0  # seconds between two kills, in the mean
STARTING = 3  # of the cast at once, at most
BREATH = 0.05  # seconds between two turns: who has nothing to do leaves the processor to others
BRIEF = Budget(length=timedelta(seconds=1))  # there is always more to do here


def open_lake(folder: Path) -> Lakehouse:
    return Lakehouse.open(Settings(state_dir=folder, config=folder / "none.yaml"))


@dataclass(frozen=True)
class Turn:
    """One go of one process at its work."""

    lake: Lakehouse
    name: str
    number: int

    @property
    def table(self) -> str:
        """The one whose turn it is."""
        return (QUOTES, BARS)[self.number % 2]


# What the processes do, each once and then again.


def record(turn: Turn) -> None:
    """Append the next numbers, as the sink does: look, send, progress in the same transaction."""
    lake, key = turn.lake, f"writer.{turn.name}"
    done = lake.progress(QUOTES, key) or 0
    numbers = pl.int_range(done + 1, done + ROWS + 1, eager=True)
    frame = pl.DataFrame({"sequence": numbers}).with_columns(
        exchange=pl.lit("BINANCE"),
        symbol=pl.Series([SYMBOLS[n % len(SYMBOLS)] for n in numbers]),
        event_time=pl.lit(START) + pl.col("sequence") * timedelta(seconds=7),
        writer_id=pl.lit(turn.name),
    )
    frame = frame.with_columns(received_at=pl.col("event_time"))
    lake.append(QUOTES, fill(frame, schemas.QUOTES), progress={key: done + ROWS})


def build(turn: Turn) -> None:
    """Overwrite a minute of all symbols with the version after the one it finds there."""
    lake, minute = turn.lake, (turn.number * 5 + len(turn.name)) % MINUTES
    window = TimeWindow(START + minute * MINUTE, START + (minute + 1) * MINUTE)
    since = lake.head(BARS)
    seen = lake.scan(BARS, window=window).select("flags").collect()["flags"].max()
    version = (seen if isinstance(seen, int) else 0) + 1
    frame = pl.DataFrame({"symbol": SYMBOLS}).with_columns(
        exchange=pl.lit("BINANCE"), open_time=pl.lit(window.start), flags=pl.lit(version)
    )
    slice_ = Slice("BINANCE", window)
    lake.overwrite(BARS, fill(frame, schemas.MINUTE_BARS), slice=slice_, since=since)


def do_seal(turn: Turn) -> None:
    seal(turn.lake, turn.table, before=CLOSED, budget=BRIEF)


def do_compact(turn: Turn) -> None:
    compact(turn.lake, turn.table, before=CLOSED, budget=BRIEF)


def do_expire(turn: Turn) -> None:
    if turn.number % 10 < 2:
        tag_day(turn.lake, turn.table, (START + turn.number // 10 * DAY).date())
    expire(turn.lake, turn.table, keep=KEPT)


def do_clean(turn: Turn) -> None:
    plan = plan_cleaning(turn.lake, turn.table, now=datetime.now(UTC), guard=GUARD)
    apply_cleaning(turn.lake, plan)


class Reader:
    """Reads both tables and compares with what it read before."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._versions: dict[datetime, int] = {}

    def __call__(self, turn: Turn) -> None:
        numbers = check_numbers(turn.lake.scan(QUOTES).collect())
        versions = check_versions(turn.lake.scan(BARS).collect())
        for seen, before in ((numbers, self._numbers), (versions, self._versions)):
            for key, value in before.items():
                if seen.get(key, 0) < value:
                    raise Broken(f"{key} fell from {value} to {seen.get(key)}")
        self._numbers, self._versions = numbers, versions


class Broken(Exception):
    """A law does not hold."""


def check_numbers(quotes: pl.DataFrame) -> dict[str, int]:
    """Return the highest number of each writer; each must be there once up to it."""
    found = quotes.group_by("writer_id").agg(
        pl.len(), pl.col("sequence").n_unique().alias("unique"), pl.col("sequence").max()
    )
    for writer, rows, unique, highest in found.rows():
        if not rows == unique == highest:
            raise Broken(f"{writer}: {rows} rows, {unique} unique, up to {highest}")
    return {writer: highest for writer, _, _, highest in found.rows()}


def check_versions(bars: pl.DataFrame) -> dict[datetime, int]:
    """Return the version of each minute; it must be one, of all symbols."""
    found = bars.group_by("open_time").agg(
        pl.len(), pl.col("symbol").n_unique().alias("symbols"), pl.col("flags").unique()
    )
    for minute, rows, symbols, versions in found.rows():
        if rows != len(SYMBOLS) or symbols != rows or len(versions) != 1:
            raise Broken(f"{minute}: {rows} rows of {symbols} symbols, versions {versions}")
    return {minute: versions[0] for minute, _, _, versions in found.rows()}


def fill(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    return frame.select(
        pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, kind).alias(name)
        for name, kind in schema.items()
    )


ROLES: dict[str, Callable[[Turn], None]] = {
    "record": record,
    "build": build,
    "seal": do_seal,
    "compact": do_compact,
    "expire": do_expire,
    "clean": do_clean,
}
CAST = ("record-a", "record-b", "build-a", "build-bb", "seal", "compact", "expire", "clean")
READERS = ("read-a", "read-b")


def act(folder: Path, name: str) -> None:
    """Be one of the cast until killed, told to stop or left alone; say each turn."""
    role = name.partition("-")[0]
    work = Reader() if role == "read" else ROLES[role]
    director = os.getppid()
    with open_lake(folder) as lake:
        for number in range(sys.maxsize):
            if (folder / "stop").exists() or os.getppid() != director:
                return
            try:
                work(Turn(lake, name, number))
                said = "done"
            except CommitConflict:
                said = "conflict"
            sys.stdout.write(f"{said}\n")
            sys.stdout.flush()
            time.sleep(BREATH)


# The director.

# The laws, as the table names them; each is broken never.
ACTING = "processes that ended or hung by themselves"
READS = "reads that were not consistent"
LOST = "appended rows lost"
DOUBLED = "appended rows doubled"
WHOLE = "overwrites lost, torn or undone"
SNAPSHOTS = "kept snapshots that do not read as published"
REACHABLE = "files deleted that a kept snapshot leads to"
FOLDERS = "tables with foreign files, or some left over"
LAWS = (ACTING, READS, LOST, DOUBLED, WHOLE, SNAPSHOTS, REACHABLE, FOLDERS)


@dataclass
class Outcome:
    """What was done by whom, how much was examined under each law, and what broke it."""

    turns: Counter[str] = field(default_factory=Counter)
    conflicts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    examined: Counter[str] = field(default_factory=Counter)  # by law
    broken: list[tuple[str, str]] = field(default_factory=list)  # law, what was found

    @property
    def failures(self) -> list[str]:
        return [f"{law}: {what}" for law, what in self.broken]

    @property
    def laws(self) -> list[Law]:
        counted = Counter(law for law, _ in self.broken)
        return [Law(law, self.examined[law], counted[law]) for law in LAWS]

    def note(self, law: str, examined: int, wrong: Iterable[str] = ()) -> None:
        self.examined[law] += examined
        self.broken += [(law, each) for each in wrong]

    def as_lines(self) -> Iterator[str]:
        yield f"{'':10} {'turns':>8} {'conflicts':>10} {'kills':>6}"
        for name in (*CAST, *READERS):
            yield (f"{name:10} {self.turns[name]:8} {self.conflicts[name]:10} {self.kills[name]:6}")
        yield ""
        yield from as_table(self.laws)
        yield from self.failures


class Player:
    """One process of the cast, and its diary."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._folder, self._life = name, folder, 0
        self.start()

    def start(self) -> None:
        self._life += 1
        stem = self._folder / "diaries" / f"{self.name}.{self._life}"
        command = [sys.executable, "-m", "lakehouse_pipeline_tests.chaos.lake"]
        self._diary = stem.with_suffix(f"{stem.suffix}.out")
        with self._diary.open("w") as out, self._errors.open("w") as err:
            self.process = subprocess.Popen(
                [*command, "--act", self.name, "--folder", str(self._folder)],
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )

    @property
    def _errors(self) -> Path:
        return self._folder / "diaries" / f"{self.name}.{self._life}.err"

    @property
    def is_acting(self) -> bool:
        """Whether it has had a turn since it was last started."""
        return self._diary.stat().st_size > 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def failure(self) -> str | None:
        """Return why it ended by itself, if it did and should not have."""
        if self.process.poll() in (None, 0):
            return None
        return (
            f"{self.name} ended with {self.process.returncode}: {self._errors.read_text()[-2000:]}"
        )


def direct(folder: Path, *, seconds: float, seed: int, enough: int | None = None) -> Outcome:
    """Let the cast act for *seconds*, killing one of them now and then, and judge.

    Earlier, if everybody has had *enough* turns and there were as many kills. Only who acts is
    killed, and not while many are starting: on a slow machine the cast would only start otherwise.
    """
    choice, outcome = random.Random(seed), Outcome()
    (folder / "diaries").mkdir(parents=True)
    with open_lake(folder):
        pass  # the tables are there before anybody reads
    players = [Player(folder, name) for name in (*CAST, *READERS)]
    deadline, next_kill = time.monotonic() + seconds, time.monotonic() + 2 * EVERY
    while time.monotonic() < deadline and not outcome.failures:
        time.sleep(0.1)
        turns = read_diaries(folder)["done"]
        done = (*(turns[player.name] for player in players), outcome.kills.total())
        if enough is not None and min(done) >= enough:
            break
        for player in players:
            hear(player, outcome)
        acting = [player for player in players if player.is_acting]
        starting = len(players) - len(acting)
        if time.monotonic() >= next_kill and starting <= STARTING and not outcome.failures:
            next_kill = time.monotonic() + choice.uniform(0.5, 1.5) * EVERY
            victim = choice.choice([each for each in acting if each.name not in READERS])
            victim.kill()
            outcome.kills[victim.name] += 1
            victim.start()
    (folder / "stop").touch()
    for player in players:
        try:
            player.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            outcome.note(ACTING, 0, [f"{player.name} did not stop"])
            player.kill()
        else:
            outcome.note(ACTING, 1)
            hear(player, outcome)
    said = read_diaries(folder)
    outcome.turns, outcome.conflicts = said["done"], said["conflict"]
    outcome.note(READS, sum(outcome.turns[name] for name in READERS))
    judge(folder, outcome)
    return outcome


def hear(player: Player, outcome: Outcome) -> None:
    """Note why *player* ended by itself, if it did, once."""
    why = player.failure()
    if why is not None:
        found_by_reading = player.name in READERS and Broken.__name__ in why
        law = READS if found_by_reading else ACTING
        if (law, why) not in outcome.broken:
            outcome.note(law, 0, [why])


def read_diaries(folder: Path) -> dict[str, Counter[str]]:
    """Return how often each player said each word."""
    said: dict[str, Counter[str]] = {"done": Counter(), "conflict": Counter()}
    for diary in (folder / "diaries").glob("*.out"):
        name, words = diary.name.partition(".")[0], Counter(diary.read_text().split())
        for word, counted in said.items():
            counted[name] += words[word]
    return said


def judge(folder: Path, outcome: Outcome) -> None:
    """Compare what is in the lake with what must be."""
    with open_lake(folder) as lake:
        judge_rows(lake, outcome)
        judge_overwrites(lake, outcome)
        for table, check in ((QUOTES, check_numbers), (BARS, check_versions)):
            for snapshot in lake.load(table).metadata.snapshots:
                rows = lake.scan(table, snapshot=snapshot.snapshot_id).collect()
                outcome.note(SNAPSHOTS, 1, breaches(check, rows))
        future = datetime.now(UTC) + DAY
        for table in (QUOTES, BARS):
            loaded = lake.load(table)
            needed = reachable_files(lake, loaded) - _dropped_metadata(loaded)
            there = {file.path for file in list_files(loaded)}
            outcome.note(REACHABLE, len(needed), sorted(needed - there))
            apply_cleaning(lake, plan_cleaning(lake, table, now=future, guard=NO_GUARD))
            left = plan_cleaning(lake, table, now=future, guard=NO_GUARD).files
            outcome.note(FOLDERS, 1, [file.path for file in left])
        outcome.note(FOLDERS, 0, map(str, examine(lake)))


def _dropped_metadata(table: Table) -> set[str]:
    """Return the older metadata that a commit may have deleted already; no snapshot needs it."""
    return {entry.metadata_file for entry in table.metadata.metadata_log}


def judge_rows(lake: Lakehouse, outcome: Outcome) -> None:
    quotes = lake.scan(QUOTES).collect()
    for name in (each for each in CAST if each.startswith("record")):
        numbers = quotes.filter(pl.col("writer_id") == name)["sequence"]
        highest, progress = numbers.max() or 0, lake.progress(QUOTES, f"writer.{name}") or 0
        assert isinstance(highest, int)
        # A turn that was said is durable; one more may be that nobody heard of.
        due = max(highest, progress, outcome.turns[name] * ROWS)
        absent = len(set(range(1, due + 1)) - set(numbers))
        outcome.note(LOST, due, [f"{name}: {absent} of {due}"] if absent else [])
        again = numbers.len() - numbers.n_unique()
        outcome.note(DOUBLED, numbers.len(), [f"{name}: {again} rows"] if again else [])
        if progress < highest:
            outcome.note(DOUBLED, 0, [f"{name}: {progress} is noted of {highest}; to come again"])


def judge_overwrites(lake: Lakehouse, outcome: Outcome) -> None:
    bars = lake.scan(BARS).collect()
    wrong = breaches(check_versions, bars)
    said = outcome.turns["build-a"] + outcome.turns["build-bb"]
    outcome.note(WHOLE, said, wrong)
    if wrong:
        return
    versions = sum(check_versions(bars).values())
    if not said <= versions <= said + sum(outcome.kills.values()):
        outcome.note(WHOLE, 0, [f"{said} overwrites made {versions} versions"])


def breaches(check: Callable[[pl.DataFrame], object], rows: pl.DataFrame) -> list[str]:
    try:
        check(rows)
    except Broken as error:
        return [str(error)]
    return []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--act", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    configure_logging(40)
    if options.act:
        act(options.folder, options.act)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(f"chaos in the lake: {options.seconds:g} s, seed {options.seed}\n")
        sys.stdout.flush()
        outcome = direct(
            (options.folder or Path(folder)) / "lake", seconds=options.seconds, seed=options.seed
        )
    sys.stdout.write("\n".join(outcome.as_lines()) + "\n")
    sys.exit(0 if all_met(outcome.laws) else 1)


if __name__ == "__main__":
    main()
