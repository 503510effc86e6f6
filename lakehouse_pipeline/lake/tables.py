"""The physical model: every table's columns, partition specs, order, properties and retention.

Append a column at the end of its table (field IDs are positions and never move), give it to
``market.schemas`` as well, and raise ``SCHEMA_VERSION``; opening the lake then adds it to older
tables. What the values mean belongs to ``market``; how files are written to ``files``.

A table that moves has two specs. *Sealed*, the default, is (symbol, day): what readers want. *Hot*
is (exchange, hour): one file a commit. Sealing moves rows from the one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

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

from lakehouse_pipeline.market import schemas

SCHEMA_VERSION = 2
SCHEMA_VERSION_PROPERTY = "lakehouse.schema-version"
SNAPSHOTS_KEPT = 40  # and ten more until they are expired at once; a commit's cost grows with them

SEALED, HOT = 0, 1  # spec IDs

TEXT, REAL, INT, LONG = StringType(), DoubleType(), IntegerType(), LongType()
TIME = TimestamptzType()

Column = tuple[str, IcebergType, str]
Partition = tuple[str, Transform]  # type: ignore[type-arg]  # the library declares it generic and uses it bare

BY_VALUE, BY_DAY, BY_HOUR = IdentityTransform(), DayTransform(), HourTransform()  # type: ignore[var-annotated]  # as above

FIRST_PARTITION_FIELD = 1000  # where the format starts to number them


@dataclass(frozen=True)
class TableSpec:
    """One table. ``name`` is its identifier, its Dagster asset key and its name in the CLI."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    frame: pl.Schema
    time_column: str
    sealed: tuple[Partition, ...]
    hot: tuple[Partition, ...] | None
    order: tuple[str, ...]
    tagged_days: int = 0  # daily tags kept for time travel

    @property
    def required(self) -> frozenset[str]:
        """Columns that are never null: the time column and what the table is partitioned by."""
        partitions = (*self.sealed, *(self.hot or ()))
        return frozenset({"exchange", self.time_column, *(name for name, _ in partitions)})

    @property
    def schema(self) -> Schema:
        return Schema(
            *(
                NestedField(number, name, kind, required=name in self.required, doc=doc)
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
        bounded |= {name for name, kind, _ in self.columns if kind == TIME}
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
            "commit.manifest-merge.enabled": "true",
            "commit.manifest.min-count-to-merge": "50",
            # An append after a seal rewrites the last manifest: 0.1 ms an entry.
            "commit.manifest.target-size-bytes": str(512 << 10),
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


_EXCHANGE = ("exchange", TEXT, "The exchange's name as TradingView writes it: BINANCE")
_SYMBOL = ("symbol", TEXT, "The full name: BINANCE:BTCUSDT")
_WRITER = (
    ("session_id", TEXT, "The connection and quote session that carried it"),
    ("writer_id", TEXT, "The spool file that took it; with sequence, the row's identity"),
    ("sequence", LONG, "The row's number in its spool file"),
)

QUOTES = TableSpec(
    name="raw.quotes",
    doc="Every quote update as landed: the merged snapshot and which fields changed",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("event_time", TIME, "When it happened: last_time, or received_at for quote updates"),
        ("received_at", TIME, "When the worker saw the frame"),
        ("kind", TEXT, "price, volume, time, quote or restore"),
        ("changed", TEXT, "Columns this update carried, comma separated"),
        ("last_price", REAL, "Price of the last trade"),
        ("last_time", TIME, "Time of the last trade, whole seconds"),
        ("cumulative_volume", REAL, "The feed's volume counter, base currency"),
        ("change", REAL, "Price change since the previous day's close"),
        ("change_percent", REAL, "The same in percent"),
        ("bid", REAL, "Best bid"),
        ("ask", REAL, "Best ask"),
        ("bid_size", REAL, "Size at the best bid"),
        ("ask_size", REAL, "Size at the best ask"),
        ("day_open", REAL, "The session's open"),
        ("day_high", REAL, "The session's high"),
        ("day_low", REAL, "The session's low"),
        ("prev_day_close", REAL, "The previous session's close"),
        ("day_open_time", TIME, "When the session opened"),
        ("update_mode", TEXT, "streaming, delayed_streaming_900, …"),
        *_WRITER,
    ),
    frame=schemas.QUOTES,
    time_column="event_time",
    sealed=(("symbol", BY_VALUE), ("event_time", BY_DAY)),
    hot=(("exchange", BY_VALUE), ("received_at", BY_HOUR)),
    order=("symbol", "event_time", "sequence"),
    tagged_days=14,
)

COVERAGE = TableSpec(
    name="raw.coverage",
    doc="Which session was alive from when to when, how it ended, and what it subscribed",
    columns=(
        _EXCHANGE,
        ("session_id", TEXT, "The connection and quote session"),
        ("kind", TEXT, "opened, alive, [un]subscribed, refused, described, stalled, shed, ended"),
        ("symbol", TEXT, "The symbol concerned; null is the whole session"),
        ("start", TIME, "From, in received time"),
        ("end", TIME, "To, in received time; equals start for a point"),
        ("reason", TEXT, "Why it ended or was refused"),
        ("detail", TEXT, "The evidence in words; described: the symbol's facts as JSON"),
        ("writer_id", TEXT, "The spool file that took it; with sequence, the row's identity"),
        ("sequence", LONG, "The row's number in its spool file"),
    ),
    frame=schemas.COVERAGE,
    time_column="start",
    sealed=(("exchange", BY_VALUE), ("start", BY_DAY)),
    hot=None,
    order=("start", "sequence"),
)

RAW_INDICATORS = TableSpec(
    name="raw.indicators",
    doc="Indicator values streamed by TradingView studies",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("event_time", TIME, "Open time of the bar the value belongs to"),
        ("received_at", TIME, "When the worker saw the frame"),
        ("name", TEXT, "The study: RSI, MACD"),
        ("parameters", TEXT, "Its inputs, as JSON"),
        ("plot", TEXT, "Which of its lines"),
        ("value", REAL, "The value"),
        *_WRITER,
    ),
    frame=schemas.RAW_INDICATORS,
    time_column="event_time",
    sealed=(("symbol", BY_VALUE), ("event_time", BY_DAY)),
    hot=(("exchange", BY_VALUE), ("received_at", BY_HOUR)),
    order=("symbol", "event_time", "sequence"),
)

REJECTS = TableSpec(
    name="raw.rejects",
    doc="Frames and rows refused, with the reason: nothing is dropped silently",
    columns=(
        _EXCHANGE,
        ("session_id", TEXT, "The connection and quote session"),
        ("received_at", TIME, "When the worker saw it"),
        ("symbol", TEXT, "The symbol, where it could be read"),
        ("reason", TEXT, "Why it was refused"),
        ("payload", TEXT, "What was refused, as received"),
        ("writer_id", TEXT, "The spool file that took it; with sequence, the row's identity"),
        ("sequence", LONG, "The row's number in its spool file"),
    ),
    frame=schemas.REJECTS,
    time_column="received_at",
    sealed=(("exchange", BY_VALUE), ("received_at", BY_DAY)),
    hot=None,
    order=("received_at", "sequence"),
)

_BARS: tuple[Column, ...] = (
    _EXCHANGE,
    _SYMBOL,
    ("open_time", TIME, "Start of the interval, which is half-open"),
    ("open", REAL, "First price observed in the interval"),
    ("high", REAL, "Highest price observed"),
    ("low", REAL, "Lowest price observed"),
    ("close", REAL, "Last price observed"),
    ("prev_close", REAL, "Last price observed before the interval"),
    ("volume", REAL, "Base currency; null where it cannot be known"),
    ("volume_basis", TEXT, "How the volume is known"),
    ("counter_start", REAL, "The volume counter at the start"),
    ("counter_end", REAL, "The volume counter at the end"),
    ("price_updates", INT, "Updates that carried a price"),
    ("volume_updates", INT, "Updates that carried a volume and no price"),
    ("time_updates", INT, "Updates that carried a trade time alone"),
    ("quote_updates", INT, "Updates of bid or ask alone"),
    ("late_updates", INT, "Updates received after close and lateness"),
    ("bid", REAL, "Best bid at the end"),
    ("ask", REAL, "Best ask at the end"),
    ("spread", REAL, "Time-weighted mean of ask minus bid"),
    ("observed_seconds", INT, "Seconds with a price observation"),
    ("covered_seconds", REAL, "Seconds in which the symbol was seen"),
    ("state", TEXT, "closed or final"),
    ("source", TEXT, "Where the bar comes from"),
    ("flags", INT, "quality.Flag bits"),
)


_DEVIATIONS: tuple[Column, ...] = (
    ("price_deviation", REAL, "Largest streamed minus official price, absolute; null without both"),
    ("volume_deviation", REAL, "Streamed minus official volume; null without both"),
)


def _bars(name: str, doc: str, columns: tuple[Column, ...], frame: pl.Schema) -> TableSpec:
    return TableSpec(
        name=name,
        doc=doc,
        columns=columns,
        frame=frame,
        time_column="open_time",
        sealed=(("symbol", BY_VALUE), ("open_time", BY_DAY)),
        hot=(("exchange", BY_VALUE), ("open_time", BY_HOUR)),
        order=("symbol", "open_time"),
        tagged_days=14,
    )


BARS_1S = _bars(
    "market.bars_1s", "One-second bars built from quotes; no update, no row", _BARS, schemas.BARS
)
BARS_1M = _bars(
    "market.bars_1m",
    "One-minute bars, streamed and filled from history",
    (*_BARS, *_DEVIATIONS),
    schemas.MINUTE_BARS,
)

HISTORY_1M = TableSpec(
    name="market.history_1m",
    doc="Official one-minute bars fetched from chart history",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("open_time", TIME, "Start of the minute"),
        ("open", REAL, "Official open"),
        ("high", REAL, "Official high"),
        ("low", REAL, "Official low"),
        ("close", REAL, "Official close"),
        ("volume", REAL, "Base currency; null where the feed gives none"),
        ("fetched_at", TIME, "When it was first seen with these values"),
    ),
    frame=schemas.HISTORY,
    time_column="open_time",
    sealed=(("symbol", BY_VALUE), ("open_time", BY_DAY)),
    hot=None,
    order=("symbol", "open_time"),
)

FETCHES = TableSpec(
    name="raw.fetches",
    doc="What was asked of chart history and how far the answer reached: bars that were not given",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("start", TIME, "Of what was asked for"),
        ("end", TIME, "Of what was asked for, exclusive"),
        ("reached", TIME, "The answer speaks for what is from here on; null if it was refused"),
        ("ended", TEXT, "Why there is nothing older: reached, end, limit, empty, or a refusal"),
        ("detail", TEXT, "What the feed said when it refused"),
        ("fetched_at", TIME, "When it was answered"),
    ),
    frame=schemas.FETCHES,
    time_column="fetched_at",
    sealed=(("exchange", BY_VALUE), ("fetched_at", BY_DAY)),
    hot=None,
    order=("fetched_at", "symbol"),
)

GAPS = TableSpec(
    name="market.gaps",
    doc="The ledger of what was not seen: start, end, cause, evidence, volume missed",
    columns=(
        ("gap_id", TEXT, "Kept when a gap is split at midnight"),
        _EXCHANGE,
        _SYMBOL,
        ("start", TIME, "From"),
        ("end", TIME, "To, exclusive"),
        ("cause", TEXT, "gaps.Cause"),
        ("evidence", TEXT, "What shows it"),
        ("missed_volume", REAL, "The counter's delta over the gap, base currency"),
        ("counter_before", REAL, "The counter before the gap"),
        ("counter_after", REAL, "The counter after the gap"),
    ),
    frame=schemas.GAPS,
    time_column="start",
    sealed=(("symbol", BY_VALUE), ("start", BY_DAY)),
    hot=None,
    order=("symbol", "start"),
)

INDICATORS_1M = TableSpec(
    name="market.indicators_1m",
    doc="RSI and MACD on one-minute bars, computed or from TradingView",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("open_time", TIME, "Open time of the bar"),
        ("name", TEXT, "The indicator: RSI, MACD"),
        ("parameters", TEXT, "Its inputs, as JSON"),
        ("plot", TEXT, "Which of its lines"),
        ("value", REAL, "The value"),
        ("source", TEXT, "computed or tradingview"),
        ("flags", INT, "quality.Flag bits"),
    ),
    frame=schemas.INDICATORS,
    time_column="open_time",
    sealed=(("symbol", BY_VALUE), ("open_time", BY_DAY)),
    hot=(("exchange", BY_VALUE), ("open_time", BY_HOUR)),
    order=("symbol", "open_time", "name", "plot"),
)

RECONCILIATION = TableSpec(
    name="market.reconciliation",
    doc="The loss budget of each day and gap, and agreement with official bars",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("start", TIME, "Of the day, or of the gap"),
        ("end", TIME, "Of the day, or of the gap; exclusive"),
        ("scope", TEXT, "day or gap"),
        ("gap_id", TEXT, "The gap, where the scope is one"),
        ("status", TEXT, "The verdict"),
        ("seconds_observed", REAL, "Seconds the symbol was seen"),
        ("seconds_filled", REAL, "Seconds filled from history"),
        ("seconds_lost", REAL, "Seconds neither seen nor filled"),
        ("minutes_compared", INT, "Minutes with a streamed and an official bar"),
        ("close_mismatches", INT, "Of these, closes that differ"),
        ("max_high_deviation", REAL, "Largest difference of highs, price units"),
        ("max_low_deviation", REAL, "Largest difference of lows, price units"),
        ("missed_volume", REAL, "Volume the gaps missed, base currency"),
        ("filled_volume", REAL, "Of it, filled from history"),
        ("volume_residual", REAL, "Streamed and filled volume minus official volume"),
        ("worst", TEXT, "The worst minutes, in words"),
        ("reason", TEXT, "Why a gap cannot be filled"),
        ("minutes_unseen", INT, "Covered minutes with an official bar and no streamed one"),
    ),
    frame=schemas.RECONCILIATION,
    time_column="start",
    sealed=(("symbol", BY_VALUE), ("start", BY_DAY)),
    hot=None,
    order=("symbol", "start"),
)

SYMBOLS = TableSpec(
    name="market.symbols",
    doc="What a symbol is: precision, currency, type, counter kind, from when to when",
    columns=(
        _EXCHANGE,
        _SYMBOL,
        ("description", TEXT, "Its name in words"),
        ("currency", TEXT, "The quote currency"),
        ("type", TEXT, "spot, swap, futures, …"),
        ("pricescale", LONG, "Prices are multiples of minmov / pricescale"),
        ("minmov", LONG, "See pricescale"),
        ("update_mode", TEXT, "streaming, delayed_streaming_900, …"),
        ("counter_kind", TEXT, "How the volume counter resets: session or rolling"),
        ("counter_evidence", TEXT, "What shows it"),
        ("valid_from", TIME, "From when this row holds"),
        ("valid_to", TIME, "Until when; null is now"),
    ),
    frame=schemas.SYMBOLS,
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
