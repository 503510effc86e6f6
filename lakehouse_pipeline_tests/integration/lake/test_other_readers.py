"""DuckDB and chDB read what we wrote, with their own implementations of the format."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def expectation(lake: Lakehouse, spec: TableSpec) -> tuple[int, int]:
    """Count the rows and sum the seconds of the time column after ten."""
    seconds = (pl.col(spec.time_column) - TEN).dt.total_seconds()
    return lake.scan(spec.name).select(pl.len(), seconds.sum()).collect().row(0)


def contents(rows: Any, spec: TableSpec) -> tuple[int, int]:
    """The count and the hash of every value that another reader found."""
    frame = pl.DataFrame(pl.from_arrow(rows))
    return fingerprint(frame.select(pl.col(name).cast(kind) for name, kind in spec.frame.items()))


def test_duckdb_reads_every_table_alike(worn: Lakehouse) -> None:
    duckdb = pytest.importorskip("duckdb")
    site = Path(sysconfig.get_paths()["purelib"])
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for extension in ("avro", "iceberg"):  # from installed packages: nothing is fetched
        folder = site / f"duckdb_extension_{extension}" / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD '{folder / extension}.duckdb_extension'")

    for spec in TABLES.values():
        found = connection.execute(
            f'SELECT count(*), sum(epoch("{spec.time_column}") - {TEN.timestamp()})::BIGINT '
            f"FROM iceberg_scan('{worn.load(spec.name).metadata_location}')"
        ).fetchone()

        assert found == expectation(worn, spec), spec.name
        rows = connection.execute(
            f"SELECT * FROM iceberg_scan('{worn.load(spec.name).metadata_location}')"
        ).to_arrow_table()
        assert contents(rows, spec) == fingerprint(worn.scan(spec.name).collect()), spec.name


def test_chdb_reads_every_table_alike(worn: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    chdb = pytest.importorskip("chdb")
    # It reads files below the working directory alone.
    monkeypatch.chdir(Path(worn.load("raw.quotes").location()).parents[2])

    for spec in TABLES.values():
        time = f'toUnixTimestamp("{spec.time_column}") - {int(TEN.timestamp())}'
        found = chdb.query(
            f"SELECT count(), sum({time}) FROM icebergLocal('{worn.load(spec.name).location()}')"
        )

        assert str(found).strip() == "{},{}".format(*expectation(worn, spec)), spec.name
        rows = chdb.query(
            f"SELECT * FROM icebergLocal('{worn.load(spec.name).location()}')", "ArrowTable"
        )
        assert contents(rows, spec) == fingerprint(worn.scan(spec.name).collect()), spec.name


def test_polars_and_pyiceberg_read_every_table_alike(
    worn: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # else it warns that it is slower
    for spec in TABLES.values():
        table = worn.load(spec.name)
        seconds = (pl.col(spec.time_column) - TEN).dt.total_seconds()
        native = pl.scan_iceberg(table).select(pl.len(), seconds.sum()).collect().row(0)

        assert native == expectation(worn, spec), spec.name
        assert table.scan().to_arrow().num_rows == native[0], spec.name


def test_field_ids_are_in_the_files(lake: Lakehouse, bars: Callable[..., pl.DataFrame]) -> None:
    import pyarrow.parquet as pq

    lake.append("market.bars_1m", bars())

    schema = pq.read_schema(lake.files("market.bars_1m")["path"].item())
    assert [int(schema.field(n).metadata[b"PARQUET:field_id"]) for n in range(25)] == list(
        range(1, 26)
    )
