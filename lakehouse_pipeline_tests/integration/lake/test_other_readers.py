"""DuckDB and chDB read what we wrote, with their own implementations of the format."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.maintenance import compact, fingerprint, seal
from lakehouse_pipeline.lake.tables import TABLES, TableSpec
from lakehouse_pipeline.market.schemas import UTC_TIME
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, SECOND, TimeWindow
from lakehouse_pipeline.settings import Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
VALUES: dict[pl.DataType, pl.Expr] = {
    pl.String(): pl.format("v{}", pl.int_range(pl.len())),
    pl.Float64(): pl.int_range(pl.len()) + 0.5,
    pl.Int32(): pl.int_range(pl.len()).cast(pl.Int32),
    pl.Int64(): pl.int_range(pl.len()),
    UTC_TIME: pl.lit(TEN).cast(UTC_TIME) + pl.int_range(pl.len()) * MINUTE,
}


def rows(spec: TableSpec, count: int) -> pl.DataFrame:
    """Rows with a value in every column but one, for two exchanges."""
    names = pl.int_range(pl.len()) % 2
    frame = pl.select(pl.int_range(count).alias("row")).select(
        VALUES[kind].alias(name) for name, kind in spec.frame.items()
    )
    exchange = pl.when(names == 0).then(pl.lit("OKX")).otherwise(pl.lit("BYBIT"))
    frame = frame.with_columns(exchange.alias("exchange"))
    if "symbol" in spec.required:
        frame = frame.with_columns(pl.format("{}:BTCUSDT", "exchange").alias("symbol"))
    return frame


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    """A lake whose tables hold hot, sealed, compacted and partly overwritten files."""
    folder = tmp_path_factory.mktemp("worn")
    with Lakehouse.open(Settings(state_dir=folder, config=folder / "absent.yaml")) as lake:
        yield wear(lake)


def wear(lake: Lakehouse) -> Lakehouse:
    for name, spec in TABLES.items():
        for _ in range(2):
            lake.append(name, rows(spec, 100))
        seal(lake, name, before=TEN + HOUR)
        compact(lake, name, before=TEN + DAY)
        lake.append(name, rows(spec, 20))
        hole = TimeWindow(TEN + 10 * MINUTE + SECOND, TEN + 20 * MINUTE)
        lake.overwrite(name, pl.DataFrame(schema=spec.frame), slice=Slice("OKX", hole))
    return lake


Reading = tuple[int, int, tuple[int, int]]  # rows, seconds after ten, count and hash of all values
Read = Callable[[Lakehouse, TableSpec], Reading]


def reading(frame: pl.DataFrame, spec: TableSpec) -> Reading:
    """Count the rows, sum their times and hash every value of every column."""
    same = frame.select(pl.col(name).cast(kind) for name, kind in spec.frame.items())
    seconds = (pl.col(spec.time_column) - TEN).dt.total_seconds().sum()
    return same.height, same.select(seconds).item(), fingerprint(same)


def by_us(lake: Lakehouse, spec: TableSpec) -> Reading:
    return reading(lake.scan(spec.name).collect(), spec)


def by_duckdb(lake: Lakehouse, spec: TableSpec) -> Reading:
    duckdb = pytest.importorskip("duckdb")
    site = Path(sysconfig.get_paths()["purelib"])
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for extension in ("avro", "iceberg"):  # from installed packages: nothing is fetched
            folder = site / f"duckdb_extension_{extension}/extensions/v{duckdb.__version__}"
            connection.execute(f"LOAD '{folder / extension}.duckdb_extension'")
        table = f"iceberg_scan('{lake.load(spec.name).metadata_location}')"
        rows = connection.execute(f"SELECT * FROM {table}").to_arrow_table()
        time = f'epoch("{spec.time_column}") - {TEN.timestamp()}'
        counted = connection.execute(
            f"SELECT count(*), coalesce(sum({time}), 0)::BIGINT FROM {table}"
        ).fetchone()
    return _agreed(counted, reading(pl.DataFrame(pl.from_arrow(rows)), spec))


def by_chdb(lake: Lakehouse, spec: TableSpec) -> Reading:
    chdb = pytest.importorskip("chdb")
    table = f"icebergLocal('{lake.load(spec.name).location()}')"
    rows = chdb.query(f"SELECT * FROM {table}", "ArrowTable")
    time = f'toUnixTimestamp("{spec.time_column}") - {int(TEN.timestamp())}'
    counted = str(chdb.query(f"SELECT count(), sum({time}) FROM {table}")).strip().split(",")
    return _agreed(tuple(map(int, counted)), reading(pl.DataFrame(pl.from_arrow(rows)), spec))


def _agreed(counted: tuple[int, ...], found: Reading) -> Reading:
    """Return *found*, if the reader's own sums are those of the rows it gave."""
    assert counted == found[:2]
    return found


@pytest.fixture(params=[by_duckdb, by_chdb])
def read(request: pytest.FixtureRequest) -> Read:
    """Another reader of the format."""
    chosen: Read = request.param
    return chosen


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_read_alike(
    worn: Lakehouse, read: Read, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # chDB reads files below the working directory alone.
    monkeypatch.chdir(Path(worn.load(table).location()).parents[2])
    files = worn.files(table)
    assert set(files["spec"]) == ({"hot", "sealed"} if TABLES[table].hot else {"sealed"})

    assert read(worn, TABLES[table]) == by_us(worn, TABLES[table])


def test_a_table_that_gained_columns_is_read_alike(stored: Settings, read: Read) -> None:
    bars = TABLES["market.bars_1m"]
    with Lakehouse.open(stored) as lake:
        assert "price_deviation" not in pl.read_parquet(lake.files(bars.name)["path"][0]).columns
        for late in (False, True):
            assert read(lake, bars) == by_us(lake, bars), late
            lake.append(bars.name, rows(bars, 20))
        seal(lake, bars.name, before=TEN + 5 * DAY)
        compact(lake, bars.name, before=TEN + 5 * DAY)

        found = read(lake, bars)

        assert found == by_us(lake, bars)
        assert found[0] == 12 + 40


def test_an_empty_table_is_read_as_no_rows(
    lake: Lakehouse, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TABLES["market.symbols"]
    monkeypatch.chdir(Path(lake.load(spec.name).location()).parents[2])

    assert read(lake, spec) == (0, 0, (0, 0))


def test_a_table_that_was_emptied_is_read_as_no_rows(
    lake: Lakehouse, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TABLES["market.gaps"]
    monkeypatch.chdir(Path(lake.load(spec.name).location()).parents[2])
    lake.append(spec.name, rows(spec, 10))
    whole = TimeWindow(TEN - DAY, TEN + DAY)
    for exchange in ("OKX", "BYBIT"):
        lake.overwrite(spec.name, pl.DataFrame(schema=spec.frame), slice=Slice(exchange, whole))

    assert read(lake, spec) == (0, 0, (0, 0))


def test_polars_and_pyiceberg_read_every_table_alike(
    worn: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # else it warns that it is slower
    for spec in TABLES.values():
        table = worn.load(spec.name)

        assert reading(pl.scan_iceberg(table).collect(), spec) == by_us(worn, spec), spec.name
        assert table.scan().to_arrow().num_rows == by_us(worn, spec)[0], spec.name


def test_field_ids_are_in_the_files(lake: Lakehouse, bars: Callable[..., pl.DataFrame]) -> None:
    import pyarrow.parquet as pq

    lake.append("market.bars_1m", bars())

    schema = pq.read_schema(lake.files("market.bars_1m")["path"].item())
    assert [int(schema.field(n).metadata[b"PARQUET:field_id"]) for n in range(25)] == list(
        range(1, 26)
    )
