"""A day of 50 symbols, in bars: the kernel beside its peers, a whole build, and one tick.

All kernels get the same quotes in the order sealed files have: as a frame in memory, chDB as a
file, which it reads in its time. DuckDB is given the columns it uses as Arrow; numpy takes arrays
and codes of symbols and kinds from the frame; both are in their time too. A second line has numpy
handed those arrays: the bare reduction. Each makes, a symbol and second: open, high, low, close,
the number of updates by kind of trade, and the volume as differences of the counter. Ours also
finds what peers take on trust (order, repeats, overlapping lines, resets, holes in coverage) and
adds quotes counted, bid, ask, spread and what was covered. Results are compared before anything is
timed. A figure is the ratio of the least CPU times of turns that alternate, all threads counted.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

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
from lakehouse_pipeline_tests.benchmarks import exchange_day
from lakehouse_pipeline_tests.benchmarks.lines import Line

SYMBOLS, TURNS = 50, 5
DAY_OF = TimeWindow.of_day(datetime(2026, 1, 5, tzinfo=UTC).date())
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


Arrays = Mapping[str, Any]  # numpy arrays of several types


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


def assert_equal(bars: pl.DataFrame, peer: pl.DataFrame | Arrays, name: str) -> None:
    """All that is shared is the same; volume is a sum of binary floats with peers."""
    for column in SHARED:
        if column not in (peer.columns if isinstance(peer, pl.DataFrame) else peer):
            continue
        theirs = peer[column]
        if column == "open_time":
            same = (bars[column].dt.epoch("s").to_numpy() == theirs.dt.epoch("s").to_numpy()).all()
        elif column == "symbol":
            same = (bars[column] == theirs.cast(pl.String)).all()
        else:
            same = np.allclose(
                bars[column].to_numpy(), np.asarray(theirs, dtype=float), rtol=1e-12, atol=2e-6
            )
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
    arrays = as_arrays(quotes)
    peers: dict[str, Callable[[], pl.DataFrame | Arrays]] = {
        "DuckDB": partial(by_duckdb, quotes),
        "chDB (reads the file)": partial(by_chdb, path),
        "polars group_by": partial(by_polars, quotes),
        "numpy reduceat": lambda: by_numpy(as_arrays(quotes)),
        "numpy reduceat (handed arrays)": partial(by_numpy, arrays),
    }
    bars = ours(quotes, coverage)
    for name, peer in peers.items():
        assert_equal(bars, peer(), name)
    times = cheapest({"ours": partial(ours, quotes, coverage), **peers}, turns)
    limits = dict(zip(peers, (1 / 3, 1 / 3, 1 / 2, 1 / 0.4, 1 / 0.4), strict=True))
    return [
        Line("kernel: CPU time", times["ours"], None, "s"),
        *(
            Line(f"kernel: time / {name}", times["ours"] / times[name], limit)
            for name, limit in limits.items()
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

        times = cheapest({"build": build, "plain": plain}, 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Line("build: CPU time", times["build"], None, "s"),
        Line("build: time / polars reads and writes", times["build"] / times["plain"], 3),
        Line("build: peak memory with the input held twice", peak, None, "MiB"),
        Line("tick: time / build", one_tick(folder, quotes, coverage) / times["build"], 0.1),
    ]


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
    return lines + whole_build(folder, quotes, coverage)
