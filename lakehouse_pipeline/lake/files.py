"""Rows into Parquet files and out of them.

A file holds rows of one partition, sorted in the table's order, with field IDs and with the bounds
that planning needs. Which files to read belongs to ``planning``; making them part of a table to
``commit``.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ParquetFormatModel
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.typedef import Record

from .tables import TableSpec

MICROSECONDS_AN_HOUR = 3_600_000_000


def conform(frame: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return *frame* with exactly the table's columns, types and order.

    Raises:
        polars.exceptions.ColumnNotFoundError: if a column is missing.
        polars.exceptions.InvalidOperationError: if a value does not fit its type.
    """
    return frame.select(pl.col(name).cast(kind) for name, kind in spec.frame.items())


def write_files(
    table: Table, spec: TableSpec, frame: pl.DataFrame, *, spec_id: int
) -> list[DataFile]:
    """Write *frame* as one sorted Parquet file for each partition of spec *spec_id*.

    Nothing refers to the files until they are committed; ``discard`` takes them back.
    """
    partitioning, schema = table.specs()[spec_id], table.schema()
    keys = [
        _partition_value(field, schema).alias(f"partition {field.name}")
        for field in partitioning.fields
    ]
    names = [key.meta.output_name() for key in keys]
    parts = (
        conform(frame, spec)
        .sort(spec.order, maintain_order=True)
        .with_columns(keys)
        .partition_by(names, as_dict=True, include_key=False, maintain_order=True)
    )
    return [_write_file(table, partitioning, part, values) for values, part in parts.items()]


def _partition_value(field: PartitionField, schema: Schema) -> pl.Expr:
    column = pl.col(schema.find_field(field.source_id).name)
    match field.transform:
        case IdentityTransform():
            return column
        case DayTransform():
            return column.dt.epoch("d")
        case _:
            return column.dt.epoch("us") // MICROSECONDS_AN_HOUR


def _write_file(
    table: Table, partitioning: PartitionSpec, rows: pl.DataFrame, values: tuple[object, ...]
) -> DataFile:
    schema, record = table.schema(), Record(*values)
    folder = partitioning.partition_to_path(record, schema)
    path = table.location_provider().new_data_location(f"{folder}/{uuid.uuid4()}.parquet")
    output = table.io.new_output(path)
    writer = ParquetFormatModel().create_writer(output, schema, table.properties)
    with writer:
        writer.write(_to_arrow(rows, schema))
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=record,
        file_size_in_bytes=len(output),
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **writer.result().to_serialized_dict(),
    )
    file.spec_id = partitioning.spec_id
    return file


def _to_arrow(rows: pl.DataFrame, schema: Schema) -> pa.Table:
    # The cast brings field IDs, and refuses a null in a required column.
    return rows.select(schema.column_names).to_arrow().cast(schema.as_arrow())


def scan_files(
    locations: Sequence[str], spec: TableSpec, *, storage: Mapping[str, str]
) -> pl.LazyFrame:
    """Return the rows of the files at *locations*, which may lack newer columns."""
    if not locations:
        return pl.LazyFrame(schema=spec.frame)
    return pl.scan_parquet(
        [polars_path(location) for location in locations],
        schema=spec.frame,
        missing_columns="insert",
        hive_partitioning=False,
        glob=False,
        storage_options=dict(storage) or None,
    )


def polars_path(location: str) -> str:
    """Return *location* as polars wants it: a local file without scheme."""
    return location.removeprefix("file://")


def storage_options(properties: Mapping[str, str]) -> dict[str, str]:
    """Return polars' storage options for the catalog's ``s3.…`` properties."""
    names = {
        "s3.endpoint": "aws_endpoint_url",
        "s3.access-key-id": "aws_access_key_id",
        "s3.secret-access-key": "aws_secret_access_key",
        "s3.session-token": "aws_session_token",
        "s3.region": "aws_region",
    }
    options = {ours: properties[theirs] for theirs, ours in names.items() if theirs in properties}
    if options.get("aws_endpoint_url", "").startswith("http://"):
        options["aws_allow_http"] = "true"
    return options


def discard(io: FileIO, files: Sequence[DataFile]) -> None:
    """Delete *files*, which no commit refers to; one already gone is as good as deleted."""
    for file in files:
        try:
            io.delete(file.file_path)
        except FileNotFoundError:
            continue
