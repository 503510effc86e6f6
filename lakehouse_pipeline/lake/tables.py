"""The physical model: every table's columns, partition specs, order, properties and retention.

Append a column at the end of its table in ``market.columns`` (field IDs are positions and never
move), and raise ``SCHEMA_VERSION``; opening the lake then adds it to older tables. What the values
mean belongs to ``market``; how files are written to ``files``.

A table that moves has two specs. *Sealed*, the default, is (symbol, day): what readers want. *Hot*
is (exchange, hour): one file a commit. Sealing moves rows from the one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    Transform,
)
from pyiceberg.types import (
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from lakehouse_pipeline.market import columns
from lakehouse_pipeline.market.columns import Column, Type
from lakehouse_pipeline.market.schemas import schema_of

SCHEMA_VERSION = 4
SCHEMA_VERSION_PROPERTY = "lakehouse.schema-version"
SNAPSHOTS_KEPT = 40  # and ten more until they are expired at once; a commit's cost grows with them

SEALED, HOT = 0, 1  # spec IDs

TYPES: dict[Type, IcebergType] = {
    Type.TEXT: StringType(),
    Type.REAL: DoubleType(),
    Type.INT: IntegerType(),
    Type.LONG: LongType(),
    Type.UTC_TIME: TimestamptzType(),
}

Partition = tuple[str, Transform]  # type: ignore[type-arg]  # the library declares it generic and uses it bare

BY_VALUE, BY_DAY, BY_HOUR = IdentityTransform(), DayTransform(), HourTransform()  # type: ignore[var-annotated]  # as above

FIRST_PARTITION_FIELD = 1000  # where the format starts to number them


@dataclass(frozen=True)
class TableSpec:
    """One table. ``name`` is its identifier, its Dagster asset key and its name in the CLI."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    time_column: str
    sealed: tuple[Partition, ...]
    hot: tuple[Partition, ...] | None
    order: tuple[str, ...]
    tagged_days: int = 0  # daily tags kept for time travel

    @cached_property
    def frame(self) -> pl.Schema:
        return schema_of(self.columns)

    @cached_property
    def empty(self) -> pl.DataFrame:
        """No rows; to make it anew costs more than to plan a day."""
        return self.frame.to_frame()

    @property
    def required(self) -> frozenset[str]:
        """Columns that are never null: the time column and what the table is partitioned by."""
        partitions = (*self.sealed, *(self.hot or ()))
        return frozenset({"exchange", self.time_column, *(name for name, _ in partitions)})

    @property
    def schema(self) -> Schema:
        return Schema(
            *(
                NestedField(number, name, TYPES[kind], required=name in self.required, doc=doc)
                for number, (name, kind, doc) in enumerate(self.columns, start=1)
            )
        )

    @property
    def specs(self) -> tuple[PartitionSpec, ...]:
        """The sealed spec and, if the table has one, the hot spec; index = spec ID."""
        first = FIRST_PARTITION_FIELD
        sealed = self._spec(SEALED, self.sealed, first)
        if self.hot is None:
            return (sealed,)
        return sealed, self._spec(HOT, self.hot, first + len(self.sealed))

    @property
    def landing(self) -> int:
        """The spec ID under which new rows land."""
        return SEALED if self.hot is None else HOT

    @property
    def sort_order(self) -> SortOrder:
        schema = self.schema
        return SortOrder(
            *(SortField(schema.find_field(name).field_id, BY_VALUE) for name in self.order)
        )

    @property
    def properties(self) -> dict[str, str]:
        """The table properties, each measured to matter or needed by what we promise."""
        bounded = {"exchange", "symbol", *self.required} & set(self.frame)
        bounded |= {name for name, kind, _ in self.columns if kind == Type.UTC_TIME}
        return {
            "format-version": "2",
            SCHEMA_VERSION_PROPERTY: str(SCHEMA_VERSION),
            "comment": self.doc,
            "write.parquet.compression-codec": "zstd",
            "write.parquet.compression-level": "3",
            "write.parquet.row-group-limit": "131072",
            # Planning reads bounds of keys and times alone; the rest would only swell manifests.
            "write.metadata.metrics.default": "none",
            # The default cuts names at 16 characters, and then no file is known to lie in a slice.
            **{f"write.metadata.metrics.column.{name}": "full" for name in sorted(bounded)},
            "commit.retry.num-retries": "20",
            "commit.retry.min-wait-ms": "20",
            "commit.retry.max-wait-ms": "2000",
            "write.metadata.delete-after-commit.enabled": "true",
            # Fewer, and a slow reader finds its metadata file deleted between pointer and open.
            "write.metadata.previous-versions-max": "60",
        }

    def _spec(self, spec_id: int, partitions: tuple[Partition, ...], first: int) -> PartitionSpec:
        schema = self.schema
        return PartitionSpec(
            *(
                PartitionField(
                    source_id=schema.find_field(name).field_id,
                    field_id=first + offset,
                    transform=transform,
                    name=_partition_name(name, transform, spec_id),
                )
                for offset, (name, transform) in enumerate(partitions)
            ),
            spec_id=spec_id,
        )


def _partition_name(column: str, transform: Transform, spec_id: int) -> str:  # type: ignore[type-arg]  # as above
    if transform == BY_VALUE:
        return column
    suffix = "day" if transform == BY_DAY else "hour"
    # Bars are split by the same column under both specs; the names must differ.
    return f"{column}_{suffix}" if spec_id == SEALED else f"hot_{column}_{suffix}"


QUOTES = TableSpec(
    name="raw.quotes",
    doc="Every quote update as landed: the merged snapshot and which fields changed",
    columns=columns.QUOTES,
    time_column="event_time",
    sealed=(("symbol", BY_VALUE), ("event_time", BY_DAY)),
    hot=(("exchange", BY_VALUE), ("received_at", BY_HOUR)),
    order=("symbol", "event_time", "sequence"),
    tagged_days=14,
)

COVERAGE = TableSpec(
    name="raw.coverage",
    doc="Which session was alive from when to when, how it ended, and what it subscribed",
    columns=columns.COVERAGE,
    time_column="start",
    sealed=(("exchange", BY_VALUE), ("start", BY_DAY)),
    hot=None,
    order=("start", "sequence"),
)

RAW_INDICATORS = TableSpec(
    name="raw.indicators",
    doc="Indicator values streamed by TradingView studies",
    columns=columns.RAW_INDICATORS,
    time_column="event_time",
    sealed=(("symbol", BY_VALUE), ("event_time", BY_DAY)),
    hot=(("exchange", BY_VALUE), ("received_at", BY_HOUR)),
    order=("symbol", "event_time", "sequence"),
)

REJECTS = TableSpec(
    name="raw.rejects",
    doc="Frames and rows refused, with the reason: nothing is dropped silently",
    columns=columns.REJECTS,
    time_column="received_at",
    sealed=(("exchange", BY_VALUE), ("received_at", BY_DAY)),
    hot=None,
    order=("received_at", "sequence"),
)


def _bars(name: str, doc: str, declared: tuple[Column, ...]) -> TableSpec:
    return TableSpec(
        name=name,
        doc=doc,
        columns=declared,
        time_column="open_time",
        sealed=(("symbol", BY_VALUE), ("open_time", BY_DAY)),
        hot=(("exchange", BY_VALUE), ("open_time", BY_HOUR)),
        order=("symbol", "open_time"),
        tagged_days=14,
    )


BARS_1S = _bars(
    "market.bars_1s", "One-second bars built from quotes; no update, no row", columns.BARS
)
BARS_1M = _bars(
    "market.bars_1m", "One-minute bars, streamed and filled from history", columns.MINUTE_BARS
)

HISTORY_1M = TableSpec(
    name="market.history_1m",
    doc="Official one-minute bars fetched from chart history",
    columns=columns.HISTORY,
    time_column="open_time",
    sealed=(("symbol", BY_VALUE), ("open_time", BY_DAY)),
    hot=None,
    order=("symbol", "open_time"),
)

FETCHES = TableSpec(
    name="raw.fetches",
    doc="What was asked of chart history and how far the answer reached: bars that were not given",
    columns=columns.FETCHES,
    time_column="fetched_at",
    sealed=(("exchange", BY_VALUE), ("fetched_at", BY_DAY)),
    hot=None,
    order=("fetched_at", "symbol"),
)

GAPS = TableSpec(
    name="market.gaps",
    doc="The ledger of what was not seen: start, end, cause, evidence, volume missed",
    columns=columns.GAPS,
    time_column="start",
    sealed=(("symbol", BY_VALUE), ("start", BY_DAY)),
    hot=None,
    order=("symbol", "start"),
)

INDICATORS_1M = TableSpec(
    name="market.indicators_1m",
    doc="RSI and MACD on one-minute bars, computed or from TradingView",
    columns=columns.INDICATORS,
    time_column="open_time",
    sealed=(("symbol", BY_VALUE), ("open_time", BY_DAY)),
    hot=(("exchange", BY_VALUE), ("open_time", BY_HOUR)),
    order=("symbol", "open_time", "name", "plot"),
)

RECONCILIATION = TableSpec(
    name="market.reconciliation",
    doc="The loss budget of each day and gap, and agreement with official bars",
    columns=columns.RECONCILIATION,
    time_column="start",
    sealed=(("symbol", BY_VALUE), ("start", BY_DAY)),
    hot=None,
    order=("symbol", "start"),
)

SYMBOLS = TableSpec(
    name="market.symbols",
    doc="What a symbol is: precision, currency, type, counter kind, from when to when",
    columns=columns.SYMBOLS,
    time_column="valid_from",
    sealed=(("exchange", BY_VALUE),),
    hot=None,
    order=("symbol", "valid_from"),
)

TABLES: dict[str, TableSpec] = {
    table.name: table
    for table in (
        QUOTES,
        COVERAGE,
        RAW_INDICATORS,
        REJECTS,
        BARS_1S,
        BARS_1M,
        HISTORY_1M,
        FETCHES,
        GAPS,
        INDICATORS_1M,
        RECONCILIATION,
        SYMBOLS,
    )
}
