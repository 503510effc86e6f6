from __future__ import annotations

import polars as pl
import pytest
from pyiceberg.types import (
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestamptzType,
)

from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.tables import TABLES, TableSpec
from lakehouse_pipeline.market.schemas import UTC_TIME

POLARS_TYPES: dict[IcebergType, pl.DataType] = {
    StringType(): pl.String(),
    DoubleType(): pl.Float64(),
    IntegerType(): pl.Int32(),
    LongType(): pl.Int64(),
    TimestamptzType(): UTC_TIME,
}

every_table = pytest.mark.parametrize("spec", TABLES.values(), ids=TABLES.keys())


@every_table
def test_columns_are_those_of_the_frame_schema(spec: TableSpec) -> None:
    columns = {field.name: POLARS_TYPES[field.field_type] for field in spec.schema.fields}

    assert columns == dict(spec.frame)


@every_table
def test_every_column_is_documented(spec: TableSpec) -> None:
    assert [name for name, _, doc in spec.columns if not doc] == []


@every_table
def test_the_table_made_is_the_table_described(spec: TableSpec, lake: Lakehouse) -> None:
    table = lake.load(spec.name)

    assert table.schema() == spec.schema
    assert table.specs() == {each.spec_id: each for each in spec.specs}
    assert table.spec() == spec.specs[0]
    assert table.sort_order().fields == spec.sort_order.fields
    assert table.properties.items() >= (spec.properties.items() - {("format-version", "2")})


def test_streams_are_partitioned_for_readers_and_land_in_one_file_a_commit() -> None:
    partitions = {
        name: [str(spec) for spec in table.specs]
        for name, table in TABLES.items()
        if table.hot is not None
    }

    assert partitions.keys() == {
        "raw.quotes",
        "raw.indicators",
        "market.bars_1s",
        "market.bars_1m",
        "market.indicators_1m",
    }
    assert "symbol: identity(2)" in partitions["raw.quotes"][0]
    assert "event_time_day: day(3)" in partitions["raw.quotes"][0]
    assert "exchange: identity(1)" in partitions["raw.quotes"][1]
    assert "hot_received_at_hour: hour(4)" in partitions["raw.quotes"][1]
