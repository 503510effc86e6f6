"""Rows into Parquet files and out of them.

A file holds rows of one partition, sorted in the table's order, with field IDs and with the bounds
that planning needs. Which files to read belongs to ``planning``; making them part of a table to
``commit``.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.typedef import Record

from lakehouse_pipeline.market.arrays import in_order

from .tables import TableSpec

MICROSECONDS_AN_HOUR = 3_600_000_000
THREADS = 4


def conform(frame: pl.DataFrame, spec: TableSpec) -> pl.DataFrame:
    """Return *frame* with exactly the table's columns, types and order.

    Raises:
        polars.exceptions.ColumnNotFoundError: if a column is missing.
        polars.exceptions.InvalidOperationError: if a value does not fit its type.
    """
    return frame.select(pl.col(name).cast(kind) for name, kind in spec.frame.items())


def write_files(
    table: Table,
    spec: TableSpec,
    frame: pl.DataFrame,
    *,
    spec_id: int,
    max_rows: int | None = None,
) -> list[DataFile]:
    """Write *frame* as one sorted Parquet file for each partition of spec *spec_id*.

    One of more than *max_rows* rows is cut into as few files as hold them, of even length.
    Nothing refers to the files until they are committed; ``discard`` takes them back.
    """
    keys = partition_keys(table, spec_id)
    names = [key.meta.output_name() for key in keys]
    rows = in_order(conform(frame, spec).with_columns(keys), *names, *spec.order)
    parts = rows.group_by(names, maintain_order=True).len().rows()
    writer = _Writer(table, spec_id)
    pieces: list[tuple[pl.DataFrame, tuple[object, ...]]] = []
    offset = 0
    for *values, length in parts:
        count = 1 if max_rows is None else -(-length // max_rows)
        edges = [offset + length * piece // count for piece in range(count + 1)]
        for start, end in itertools.pairwise(edges):
            pieces.append((rows.slice(start, end - start), tuple(values)))
        offset += length
    if len(pieces) == 1:
        return [writer.write(*pieces[0])]
    with ThreadPoolExecutor(THREADS) as threads:  # some compress while others wait for the disk
        return list(threads.map(writer.write, *zip(*pieces, strict=True)))


def partition_keys(table: Table, spec_id: int) -> list[pl.Expr]:
    """Return what a row's partition of spec *spec_id* is made of, as ``DataFile.partition`` is."""
    return [
        _partition_value(field, table.schema()).alias(f"partition {field.name}")
        for field in table.specs()[spec_id].fields
    ]


def _partition_value(field: PartitionField, schema: Schema) -> pl.Expr:
    column = pl.col(schema.find_field(field.source_id).name)
    match field.transform:
        case IdentityTransform():
            return column
        case DayTransform():
            return column.dt.epoch("d")
        case _:
            return column.dt.epoch("us") // MICROSECONDS_AN_HOUR


class _Writer:
    """What all files of one spec have in common; finding it out costs more than a small file."""

    def __init__(self, table: Table, spec_id: int) -> None:
        self._io, self._partitioning = table.io, table.specs()[spec_id]
        self._schema, self._properties = table.schema(), table.properties
        self._locations = table.location_provider()
        self._arrow = self._schema.as_arrow()
        self._statistics = compute_statistics_plan(self._schema, self._properties)
        self._columns = parquet_path_to_id_mapping(self._schema)
        # Numbers hardly repeat: a dictionary of them makes a day of bars slower and larger.
        self._texts = [field.name for field in self._arrow if pa.types.is_large_string(field.type)]

    def _to_arrow(self, rows: pl.DataFrame) -> pa.Table:
        # The cast brings field IDs, and refuses a null in a required column.
        return rows.select(self._schema.column_names).to_arrow().cast(self._arrow)

    def write(self, rows: pl.DataFrame, values: Sequence[object]) -> DataFile:
        """Write the rows of the partition *values* as one file."""
        record = Record(*values)
        folder = self._partitioning.partition_to_path(record, self._schema)
        path = self._locations.new_data_location(f"{folder}/{uuid.uuid4()}.parquet")
        output = self._io.new_output(path)
        with output.create() as stream:
            writer = pq.ParquetWriter(
                stream,
                self._arrow,
                use_dictionary=self._texts,
                compression=self._properties["write.parquet.compression-codec"],
                compression_level=int(self._properties["write.parquet.compression-level"]),
            )
            with writer:
                limit = int(self._properties["write.parquet.row-group-limit"])
                writer.write_table(self._to_arrow(rows), row_group_size=limit)
        statistics = data_file_statistics_from_parquet_metadata(
            writer.writer.metadata, self._statistics, self._columns
        )
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=record,
            file_size_in_bytes=len(output),
            sort_order_id=None,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
        file.spec_id = self._partitioning.spec_id
        return file


def scan_files(
    locations: Sequence[str], spec: TableSpec, *, storage: Mapping[str, str]
) -> pl.LazyFrame:
    """Return the rows of the files at *locations*, which may lack newer columns."""
    if not locations:
        return spec.empty.lazy()
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
