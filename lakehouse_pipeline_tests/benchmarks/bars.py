"""A day of 50 symbols, in bars: the kernel beside its peers, a whole build, and one tick.

All kernels get the same quotes in the order sealed files have: as a frame in memory, chDB as a
file, which it reads in its time. DuckDB is given the columns it uses as Arrow, in its time too;
numpy is handed sorted columns as arrays, codes of symbols and kinds among them. The limits hold for
the whole bar, the columns of ``whole_bars.BAR`` by every peer. Beside them, without a limit, stand
the figures of peers that make the trades' columns alone (SHARED: no book, spread, counter or
previous close) while ours makes all. Results are compared before anything is timed. A figure is the
ratio of the least CPU times of turns that alternate, all threads counted.

A build is timed beside reading the same quotes and writing its tables' rows with polars, at the
same codec and level. Its memory is that of ``lakehouse build`` in a process of its own, over a day
and over three.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from lakehouse_pipeline.build.bars import BARS_1S, current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.indicators import studies_of
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.benchmarks import exchange_day, whole_bars
from lakehouse_pipeline_tests.benchmarks.lines import Line
from lakehouse_pipeline_tests.benchmarks.whole_bars import Arrays

SYMBOLS, TURNS = 50, 5
DAY_OF = TimeWindow.of_day(datetime(2026, 1, 5, tzinfo=UTC).date())
RUN = """
import sys
from pathlib import Path
from lakehouse_pipeline.cli import main
try:
    main()
finally:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    sys.stderr.write(" " + peak.split()[1])
"""
SHARED = [
    *("symbol", "open_time", "open", "high", "low", "close", "volume"),
    *("price_updates", "volume_updates", "time_updates"),
]
USED = [
    *("symbol", "kind", "sequence", "event_time", "received_at", "last_price"),
    "cumulative_volume",
]
SQL = """
SELECT symbol, open_time,
  {first}(price) AS open, max(price) AS high, min(price) AS low, {last}(price) AS close,
  sum(delta) AS volume,
  {count}(kind = 'price') AS price_updates, {count}(kind = 'volume') AS volume_updates,
  {count}(kind = 'time') AS time_updates
FROM (
  SELECT symbol, kind, sequence, {second} AS open_time,
    CASE WHEN kind <> 'restore' THEN last_price END AS price,
    cumulative_volume - {lag}(cumulative_volume) OVER (
      PARTITION BY symbol ORDER BY event_time, received_at, sequence {frame}) AS delta
  FROM {source} WHERE kind <> 'quote'
)
GROUP BY symbol, open_time HAVING max(price) IS NOT NULL ORDER BY symbol, open_time
"""


def ours(quotes: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
    return build_bars_1s(quotes, coverage, DAY_OF, DAY_OF.end + DAY)


def by_polars(quotes: pl.DataFrame) -> pl.DataFrame:
    kind, counter = pl.col("kind"), pl.col("cumulative_volume")
    price = pl.col("last_price").filter(kind != "restore")
    return (
        quotes.lazy()
        .filter(kind != "quote")
        .with_columns(
            open_time=pl.col("event_time").dt.truncate("1s"), delta=counter.diff().over("symbol")
        )
        .group_by("symbol", "open_time")
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=pl.col("delta").sum(),
            price_updates=(kind == "price").sum(),
            volume_updates=(kind == "volume").sum(),
            time_updates=(kind == "time").sum(),
        )
        .filter(pl.col("open").is_not_null())
        .sort("symbol", "open_time")
        .collect()
    )


def by_duckdb(quotes: pl.DataFrame) -> pl.DataFrame:
    sql = SQL.format(
        first="first_ordered",
        last="last_ordered",
        count="count_if",
        second="date_trunc('second', event_time)",
        lag="lag",
        frame="",
        source="quotes",
    )
    for name, aggregate in (("first_ordered", "arg_min"), ("last_ordered", "arg_max")):
        sql = sql.replace(f"{name}(price)", f"{aggregate}(price, sequence) FILTER (price NOTNULL)")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("quotes", quotes.select(USED).to_arrow())
        return connection.execute(sql).pl()


def by_chdb(path: Path) -> pl.DataFrame:
    import chdb  # its import starts threads

    sql = SQL.format(
        first="argMinIf",
        last="argMaxIf",
        count="countIf",
        second="toStartOfSecond(event_time)",
        lag="lagInFrame",
        frame="ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        source=f"file('{path}', Parquet)",
    )
    for name in ("argMinIf", "argMaxIf"):
        sql = sql.replace(f"{name}(price)", f"{name}(price, sequence, price IS NOT NULL)")
    return pl.DataFrame(pl.from_arrow(chdb.query(sql, "ArrowTable")))


def as_arrays(quotes: pl.DataFrame) -> Arrays:
    """Return what numpy needs, with the kinds of ``by_numpy``: other than these are 0."""
    kind = np.zeros(quotes.height, dtype=np.int8)
    for code, name in enumerate(("price", "volume", "time", "quote"), start=1):
        kind += (quotes["kind"] == name).to_numpy() * np.int8(code)
    return {
        "symbol": quotes["symbol"].rle_id().to_numpy(),
        "happened": quotes["event_time"].to_physical().to_numpy(),
        "kind": kind,
        **{name: quotes[name].to_numpy() for name in ("last_price", "cumulative_volume")},
    }


def by_numpy(columns: Arrays) -> Arrays:
    touching = np.flatnonzero(columns["kind"] != 4)
    delta = np.diff(columns["cumulative_volume"][touching], prepend=0.0)
    trades = columns["kind"][touching] > 0
    delta, at = delta[trades], touching[trades]
    symbol, kind, price = columns["symbol"][at], columns["kind"][at], columns["last_price"][at]
    second = columns["happened"][at] // 1_000_000
    edge = (symbol[1:] != symbol[:-1]) | (second[1:] != second[:-1])
    starts = np.flatnonzero(np.append(True, edge))
    return {
        "open": price[starts],
        "high": np.maximum.reduceat(price, starts),
        "low": np.minimum.reduceat(price, starts),
        "close": price[np.append(starts[1:], price.size) - 1],
        "volume": np.add.reduceat(delta, starts),
        "price_updates": np.add.reduceat(kind == 1, starts, dtype=np.int32),
        "volume_updates": np.add.reduceat(kind == 2, starts, dtype=np.int32),
        "time_updates": np.add.reduceat(kind == 3, starts, dtype=np.int32),
    }


def assert_equal(
    bars: pl.DataFrame, peer: pl.DataFrame | Arrays, name: str, columns: list[str]
) -> None:
    """All of *columns* is the same; sums are of binary floats with peers.

    A symbol's first bar has no price before it: peers give it that of the restored state.
    """
    first = (bars["symbol"] != bars["symbol"].shift()).fill_null(value=True).to_numpy()
    for column in columns:
        if column not in (peer.columns if isinstance(peer, pl.DataFrame) else peer):
            continue
        theirs = peer[column]
        if column == "open_time":
            same = (bars[column].dt.epoch("s").to_numpy() == theirs.dt.epoch("s").to_numpy()).all()
        elif column == "symbol":
            same = (bars[column] == theirs.cast(pl.String)).all()
        else:
            values = bars[column].to_numpy(), np.asarray(theirs, dtype=float)
            close = np.isclose(*values, rtol=1e-12, atol=2e-6)
            same = (close | (first & (column == "prev_close"))).all()
        assert same, f"{name} has another {column}"


def cheapest(works: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the least CPU seconds of each, turn by turn."""
    least = dict.fromkeys(works, float("inf"))
    for _ in range(turns):
        for name, work in works.items():
            begun = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - begun)
    return least


def kernel(folder: Path, quotes: pl.DataFrame, coverage: pl.DataFrame, turns: int) -> list[Line]:
    path = folder / "quotes.parquet"
    quotes.write_parquet(path, compression="zstd", compression_level=3)
    arrays, trades = whole_bars.as_arrays(quotes), as_arrays(quotes)
    peers: dict[str, Callable[[], pl.DataFrame | Arrays]] = {
        "DuckDB": partial(whole_bars.by_duckdb, quotes),
        "chDB (reads the file)": partial(whole_bars.by_chdb, path),
        "polars group_by": partial(whole_bars.by_polars, quotes),
        "numpy reduceat": partial(whole_bars.by_numpy, arrays),
    }
    lesser: dict[str, Callable[[], pl.DataFrame | Arrays]] = {
        "DuckDB, trades' columns alone": partial(by_duckdb, quotes),
        "chDB, trades' columns alone": partial(by_chdb, path),
        "polars, trades' columns alone": partial(by_polars, quotes),
        "numpy, trades' columns alone": partial(by_numpy, trades),
    }
    bars = ours(quotes, coverage)
    for name, peer in peers.items():
        assert_equal(bars, peer(), name, whole_bars.BAR)
    for name, peer in lesser.items():
        assert_equal(bars, peer(), name, SHARED)
    times = cheapest({"ours": partial(ours, quotes, coverage), **peers}, turns)
    times |= cheapest(lesser, min(turns, 3))
    limits = dict(zip(peers, (1 / 3, 1 / 3, 1 / 2, 1 / 0.4), strict=True))
    return [
        Line("kernel: CPU time", times["ours"], None, "s"),
        *(
            Line(f"kernel: time / {name}", times["ours"] / times[name], limits.get(name))
            for name in (*peers, *lesser)
        ),
    ]


def whole_build(folder: Path, quotes: pl.DataFrame, coverage: pl.DataFrame) -> list[Line]:
    """Build the sealed day, beside reading and writing the same rows; then a minute's tick."""
    settings = Settings(state_dir=folder / "lake", config=folder / "none.yaml")
    exchange, day = exchange_day.EXCHANGE, DAY_OF
    with Lakehouse.open(settings) as lake:
        lake.overwrite("raw.quotes", quotes, slice=Slice(exchange, day))
        lake.append("raw.coverage", coverage)
        studies = studies_of(settings.indicators)

        def build() -> None:
            build_day(lake, exchange, day.start.date(), studies=studies)

        build()
        tables = ("bars_1s", "bars_1m", "gaps", "indicators_1m", "reconciliation")
        written = [lake.scan(f"market.{name}").collect() for name in tables]

        def plain() -> None:
            lake.scan("raw.quotes").collect()
            for number, frame in enumerate(written):
                frame.write_parquet(folder / f"{number}.parquet", compression_level=3)

        times = cheapest({"build": build, "plain": plain}, 3)
    return [
        Line("build: CPU time", times["build"], None, "s"),
        Line("build: time / polars reads and writes", times["build"] / times["plain"], 3),
        Line("tick: time / build", one_tick(folder, quotes, coverage) / times["build"], 0.1),
    ]


def memory(folder: Path, quotes: pl.DataFrame, coverage: pl.DataFrame) -> list[Line]:
    """Return the peak memory of ``lakehouse build`` over a day and over three like it."""
    settings = Settings(state_dir=folder / "days", config=folder / "none.yaml")
    with Lakehouse.open(settings) as lake:
        for number in range(3):
            after = pl.col(pl.Datetime("us", "UTC")) + number * DAY
            part = TimeWindow(DAY_OF.start + number * DAY, DAY_OF.end + number * DAY)
            later = quotes.with_columns(after, session_id=pl.lit(f"session-{number}"))
            lake.overwrite("raw.quotes", later, slice=Slice(exchange_day.EXCHANGE, part))
            marks = coverage.with_columns(after, session_id=pl.lit(f"session-{number}"))
            lake.append("raw.coverage", marks)
    one, three = (peak(folder / "days", days) for days in (1, 3))
    return [
        Line("build of a day: peak memory", one, 2048, "MiB"),
        Line("build of three days: peak memory / of one", three / one, 1.15),
    ]


def peak(state: Path, days: int) -> float:
    """Return the most MiB that a build of the first *days* holds."""
    first = DAY_OF.start.date()
    command = [sys.executable, "-c", RUN, "build", "--exchange", exchange_day.EXCHANGE]
    command += ["--from", str(first), "--to", str(first + (days - 1) * DAY)]
    environment = {**os.environ, "LAKEHOUSE_STATE_DIR": str(state)}
    done = subprocess.run(
        command, env=environment, cwd=state, capture_output=True, text=True, check=True
    )
    return int(done.stderr.split()[-1]) / 1024


def one_tick(folder: Path, quotes: pl.DataFrame, coverage: pl.DataFrame) -> float:
    """Return the CPU seconds of a tick over one new minute, late in the day: the median of ten."""
    exchange, times = exchange_day.EXCHANGE, []
    settings = Settings(state_dir=folder / "ticked", config=folder / "none.yaml")
    first = DAY_OF.end - 12 * MINUTE

    def within(frame: pl.DataFrame, column: str, start: datetime, end: datetime) -> pl.DataFrame:
        return frame.filter(pl.col(column).is_between(start, end, closed="left"))

    with Lakehouse.open(settings) as lake:
        earlier = within(quotes, "received_at", DAY_OF.start, first)
        lake.overwrite("raw.quotes", earlier, slice=Slice(exchange, DAY_OF))
        lake.append("raw.coverage", within(coverage, "start", DAY_OF.start, first))
        for minute in range(12):
            for part in range(4 if minute else 0):
                start = first + (minute - 1) * MINUTE + part * exchange_day.CADENCE
                end = start + exchange_day.CADENCE
                lake.append("raw.quotes", within(quotes, "received_at", start, end))
                lake.append("raw.coverage", within(coverage, "start", start, end))
            begun = time.process_time()
            seen = current_watermark(lake, exchange)
            assert seen is not None
            tick_1s(lake, exchange, watermark=seen)
            tick_1m(lake, exchange, watermark=seen)
            times.append(time.process_time() - begun)
        ticked = lake.scan(BARS_1S).collect().sort("symbol", "open_time")
        whole = build_bars_1s(quotes, coverage, TimeWindow(DAY_OF.start, seen), seen)
        assert ticked.drop("covered_seconds", "flags").equals(
            whole.drop("covered_seconds", "flags")
        ), "ticks have other bars than the day"
    return statistics.median(times[2:])


def run(folder: Path, *, scale: float, say: Callable[[str], object]) -> list[Line]:
    """Measure *scale* of 50 symbols."""
    symbols = max(2, round(SYMBOLS * scale))
    quotes = exchange_day.quotes_of(DAY_OF, symbols)
    coverage = exchange_day.coverage_of(
        TimeWindow(DAY_OF.start, DAY_OF.end + timedelta(seconds=15)), symbols
    )
    say(f"{quotes.height} quotes of {symbols} symbols")
    lines = kernel(folder, quotes, coverage, TURNS)
    say("measured the kernels")
    lines += whole_build(folder, quotes, coverage)
    say("measured a build and ticks")
    return lines + memory(folder, quotes, coverage)
