"""What moving and reading rows costs, against plain pyarrow and plain polars on the same files.

Each pair is measured turn by turn in one process; the ratio is of the medians of CPU time, because
a shared machine makes wall times lie. At 0.7 of the plain speed the time is 1.43 of the plain one.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from polars.testing import assert_frame_equal

from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.files import scan_files
from lakehouse_pipeline.lake.maintenance import compact, fingerprint, seal
from lakehouse_pipeline.lake.slices import Selection, Slice
from lakehouse_pipeline.lake.tables import TABLES
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import DAY, HOUR, SECOND, TimeWindow
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.benchmarks.lines import Line

COUNTS = ("price_updates", "volume_updates", "time_updates", "quote_updates", "late_updates")
TABLE = "raw.quotes"
ORDER = ("symbol", "event_time", "sequence")
BARS = "market.bars_1s"
START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + 365 * 3 * DAY


def open_lake(folder: Path) -> Lakehouse:
    return Lakehouse.open(Settings(state_dir=folder, config=folder / "none.yaml"))


def quotes(start: datetime, *, seconds: int, symbols: int, first: int) -> pl.DataFrame:
    """A quote a second of each symbol, in the order it was received."""
    count = seconds * symbols
    number = pl.int_range(count)
    index = number % symbols
    price = 100.0 + ((number * 7919) % 997) / 100
    known = {
        "exchange": pl.lit("BINANCE"),
        "symbol": pl.format("BINANCE:S{}USDT", index),
        "event_time": pl.lit(start) + (number // symbols) * SECOND,
        "received_at": pl.lit(start) + (number // symbols) * SECOND + timedelta(milliseconds=300),
        "kind": pl.lit("price"),
        "changed": pl.lit("last_price,last_time,cumulative_volume"),
        "last_price": price,
        "cumulative_volume": number * 0.25,
        "bid": price - 0.01,
        "ask": price + 0.01,
        "session_id": pl.lit("s"),
        "writer_id": pl.lit("w"),
        "sequence": number + first,
    }
    return _frame(known, schemas.QUOTES)


def bars(start: datetime, *, seconds: int, symbol: str) -> pl.DataFrame:
    """A bar for every second, with prices and volumes that do not compress to nothing."""
    chance = np.random.default_rng(seconds)
    price = 50_000 + np.cumsum(chance.integers(-40, 41, seconds)) / 100
    volume = chance.exponential(0.05, seconds).round(5)
    counts = chance.integers(0, 4, (5, seconds))
    known = {
        "exchange": pl.lit("BINANCE"),
        "symbol": pl.lit(symbol),
        "open_time": pl.lit(start) + pl.int_range(seconds) * SECOND,
        "open": price,
        "high": price + chance.integers(0, 9, seconds) / 100,
        "low": price - chance.integers(0, 9, seconds) / 100,
        "close": price + chance.integers(-4, 5, seconds) / 100,
        "prev_close": price,
        "volume": volume,
        "volume_basis": pl.lit("counter_delta"),
        "counter_start": np.cumsum(volume) - volume,
        "counter_end": np.cumsum(volume),
        **dict(zip(COUNTS, counts, strict=True)),
        "bid": price - 0.01,
        "ask": price + 0.01,
        "spread": chance.exponential(0.01, seconds),
        "observed_seconds": pl.lit(1),
        "covered_seconds": pl.lit(1.0),
        "state": pl.lit("final"),
        "source": pl.lit("stream"),
        "flags": pl.lit(0),
    }
    exprs = {
        name: pl.lit(pl.Series(name, value)) if isinstance(value, np.ndarray) else value
        for name, value in known.items()
    }
    return _frame(exprs, schemas.BARS)


def _frame(known: dict[str, pl.Expr], schema: pl.Schema) -> pl.DataFrame:
    height = pl.select(known["open_time" if "open_time" in known else "event_time"]).height
    return pl.select(pl.int_range(height).alias("row")).select(
        known.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items()
    )


# Sealing and compaction.


def rewriting(folder: Path, *, hours: int, symbols: int, repeats: int) -> list[Line]:
    """Seal hot files, then compact what was sealed, each against plain pyarrow on its files."""
    sealing: list[tuple[float, float]] = []
    compacting: list[tuple[float, float]] = []
    for turn in range(repeats):
        with open_lake(folder / str(turn)) as lake:
            for hour in range(hours):
                for part in range(6):
                    at = START + hour * HOUR + part * HOUR / 6
                    first = (hour * 6 + part) * 600 * symbols
                    lake.append(TABLE, quotes(at, seconds=600, symbols=symbols, first=first))
            # Two hours together, as sealing takes them: BINANCE/491626 is an hour since 1970.
            pair = pl.col("partition").str.split("/").list.last().cast(pl.Int64) // 2
            hours_of = lake.files(TABLE).group_by(pair).agg("path")["path"].to_list()
            rows = content(lake)
            plain = spent(lambda: plainly(hours_of, folder / f"plain {turn}"))  # noqa: B023  # called at once
            assert written(folder / f"plain {turn}") == rows, "the peer does the same work"
            # Every two hours, as the schedule does; compaction then finds small sealed files.
            ours = sum(
                spent(lambda: seal(lake, TABLE, before=START + hour * HOUR))  # noqa: B023
                for hour in range(2, hours + 1, 2)
            )
            assert content(lake) == rows, "sealing moves rows and changes none"
            assert set(lake.files(TABLE)["spec"]) == {"sealed"}
            sealing.append((plain, ours))
            days_of = lake.files(TABLE).group_by("partition").agg("path")["path"].to_list()
            plain = spent(lambda: plainly(days_of, folder / f"plain again {turn}"))  # noqa: B023
            ours = spent(lambda: compact(lake, TABLE, before=LATER))
            assert written(folder / f"plain again {turn}") == rows, "the peer does the same work"
            assert content(lake) == rows, "compaction moves rows and changes none"
            assert lake.files(TABLE).height == len(days_of), "one file a symbol and day"
            compacting.append((plain, ours))
    return [
        Line("seal: time / plain read-sort-write", _slowness(sealing), 1 / 0.7),
        Line("compact: time / plain read-sort-write", _slowness(compacting), 1 / 0.7),
    ]


def plainly(groups: Sequence[Sequence[str]], folder: Path) -> None:
    """Read each group of files, sort it and write one file a symbol and day, with pyarrow."""
    folder.mkdir()
    for number, paths in enumerate(groups):
        table = pa.concat_tables(pq.read_table(path, partitioning=None) for path in paths)
        table = table.sort_by([(name, "ascending") for name in ORDER])
        days = pc.cast(pc.floor_temporal(table["event_time"], unit="day"), pa.int64())
        names = table["symbol"].combine_chunks().dictionary_encode().indices
        keys = np.stack([np.asarray(names), np.asarray(days)])
        starts = [0, *(np.nonzero((np.diff(keys) != 0).any(axis=0))[0] + 1), table.num_rows]
        for start, end in itertools.pairwise(starts):
            part, path = table.slice(start, end - start), folder / f"{number}-{start}.parquet"
            pq.write_table(part, path, compression="zstd", compression_level=3)


def content(lake: Lakehouse) -> tuple[int, int]:
    """Return what no order changes of the rows in the lake: their count and a hash of them."""
    return fingerprint(lake.scan(TABLE).collect())


def written(folder: Path) -> tuple[int, int]:
    """Return the same of the files in *folder*."""
    return fingerprint(
        scan_files([str(path) for path in folder.iterdir()], TABLES[TABLE], storage={}).collect()
    )


def spent(work: Callable[[], object]) -> float:
    """Return the CPU seconds that *work* takes, all threads counted."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _slowness(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)


# Reading.


def reading(folder: Path, *, symbols: int, days: int, repeats: int) -> list[Line]:
    """Read a symbol-day of seconds, and find one hour in many days."""
    with open_lake(folder) as lake:
        names = [f"BINANCE:S{number}USDT" for number in range(symbols)]
        for number in range(days):
            day = START + number * DAY
            # Whole seconds on the first day alone: elsewhere only the number of files matters.
            seconds = 86_400 if number == 0 else 60
            frame = pl.concat(bars(day, seconds=seconds, symbol=name) for name in names)
            lake.overwrite(BARS, frame, slice=Slice("BINANCE", TimeWindow(day, day + DAY)))
        first = TimeWindow(START, START + DAY)

        def ours() -> pl.DataFrame:
            return lake.scan(BARS, window=first, symbols=names[:1]).collect()

        paths = [
            file.path
            for file in lake.live_files(BARS)
            if file.partition == (names[0], (START - datetime(1970, 1, 1, tzinfo=UTC)).days)
        ]

        def plain() -> pl.DataFrame:
            return pl.scan_parquet(paths, hive_partitioning=False).collect()

        assert plain().height == 86_400
        assert_frame_equal(ours(), plain(), check_row_order=False)
        pairs = [(spent(ours), spent(plain)) for _ in range(repeats)]
        ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
        hour = TimeWindow(START + 7 * HOUR, START + 8 * HOUR)
        middle = START + days // 2 * DAY
        touched = [
            len(
                lake.live_files(
                    BARS, Selection(window=TimeWindow(at, at + HOUR), symbols=(names[0],))
                )
            )
            for at in (hour.start, middle)
        ]
        assert min(touched) > 0, "the rows asked for are in some file"
    return [
        Line("symbol-day of seconds / raw scan_parquet", ratio, 1.15),
        Line(f"files for one symbol and hour of {days} days", max(touched), 1),
    ]


def run(folder: Path, *, scale: float, say: Callable[[str], object]) -> list[Line]:
    """Measure at *scale* of a year of days and of twelve hours of twenty symbols."""
    days = max(20, round(365 * scale))
    hours = max(4, round(6 * scale) * 2)
    lines = reading(folder / "read", symbols=3, days=days, repeats=25)
    say(f"read from {days} days")
    lines += rewriting(folder / "write", hours=hours, symbols=20, repeats=5)
    say(f"rewrote {hours} hours of 20 symbols, five times")
    return lines
