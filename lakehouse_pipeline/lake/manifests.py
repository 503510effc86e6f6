"""What a manifest tells of the data files it lists.

A new process plans its first scan in some milliseconds, and most of them went into two things that
do not depend on the manifest: the library resolves the schema of its format against the schema in
the file's header each time, and looks columns up by name for each file. Here both are done once, so
that a symbol-day costs much the same in a table of one day and in one of years.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Self

from pyiceberg.avro.decoder import new_decoder
from pyiceberg.avro.file import AvroFile
from pyiceberg.avro.reader import Reader
from pyiceberg.avro.resolver import resolve_reader
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    MANIFEST_ENTRY_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.schema import Schema
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from .damage import decoding
from .slices import Selection
from .tables import HOT, TableSpec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DataFileInfo:
    """One live data file. Bounds are inclusive; None means that the file does not tell."""

    path: str
    spec_id: int
    partition: tuple[Any, ...]  # values as the spec's transforms make them: text, days, hours
    rows: int
    bytes: int
    sequence: int  # of the newest row in it; sealing and compaction keep it
    exchanges: tuple[str, str] | None
    symbols: tuple[str, str] | None
    times: tuple[datetime, datetime] | None  # of the table's time column
    received: tuple[datetime, datetime] | None  # of received_at, where the table has it

    @property
    def is_hot(self) -> bool:
        return self.spec_id == HOT

    def begins(self) -> tuple[bool, str, datetime]:
        """Return what files are put in order by: sealed ones first, by symbol and time."""
        symbol = "" if self.is_hot or self.symbols is None else self.symbols[0]
        return self.is_hot, symbol, EPOCH if self.times is None else self.times[0]

    def may_hold(self, selection: Selection) -> bool:
        """Tell whether a row of this file can be selected."""
        # The window first: it rules out most files of a table of many days.
        window, times = selection.window, self.times
        # It is half-open and bounds are inclusive: its end must lie after the earliest.
        if window and times and not (times[0] < window.end and times[1] >= window.start):
            return False
        exchange, symbols, since = selection.exchange, selection.symbols, selection.received_since
        return (
            (exchange is None or _between(self.exchanges, exchange))
            and (since is None or self.received is None or self.received[1] >= since)
            and (symbols is None or any(_between(self.symbols, name) for name in symbols))
        )

    def lies_within(self, selection: Selection) -> bool:
        """Tell whether every row of this file is known to be selected."""
        exchange, window, symbols = selection.exchange, selection.window, selection.symbols
        since = selection.received_since
        if exchange is not None and self.exchanges != (exchange, exchange):
            return False
        if since is not None and (self.received is None or self.received[0] < since):
            return False
        if symbols is not None and (
            self.symbols is None
            or self.symbols[0] != self.symbols[1]
            or self.symbols[0] not in symbols
        ):
            return False
        return window is None or (
            self.times is not None and window.start <= self.times[0] and self.times[1] < window.end
        )


def _between(bounds: tuple[str, str] | None, value: str) -> bool:
    return bounds is None or bounds[0] <= value <= bounds[1]


class _EntryFile(AvroFile[ManifestEntry]):
    """A manifest as the library reads it, with a reader made once for all files of a schema."""

    def __enter__(self) -> Self:
        with self.input_file.open() as stream:
            self.decoder = new_decoder(stream.read())
        self.header = self._read_header()
        self.reader = entry_reader(self.header.meta["avro.schema"])
        return self


@lru_cache(maxsize=64)
def entry_reader(avro_schema: str) -> Reader:
    """Return what reads the entries of manifests written with *avro_schema*; threads share it."""
    written = AvroSchemaConversion().avro_to_iceberg(json.loads(avro_schema))
    return resolve_reader(
        written,
        MANIFEST_ENTRY_SCHEMAS[DEFAULT_READ_VERSION],
        {-1: ManifestEntry, 2: DataFile},
        {0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    )


def read_manifest(
    manifest: ManifestFile, spec: TableSpec, schema: Schema, io: FileIO
) -> tuple[DataFileInfo, ...]:
    """Return the live data files that *manifest* lists.

    Raises:
        TableDamaged: the manifest is cut short or is none.
    """
    columns = _Columns.of(spec, schema)
    with (
        decoding(f"Manifest {manifest.manifest_path}"),
        _EntryFile(io.new_input(manifest.manifest_path)) as entries,
    ):
        return tuple(
            _describe(entry, manifest, columns)
            for entry in entries
            if entry.status != ManifestEntryStatus.DELETED
        )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Field IDs of the columns whose bounds are read; 0, which is no field's, if there is none."""

    exchange: int
    symbol: int
    time: int
    received: int

    @classmethod
    def of(cls, spec: TableSpec, schema: Schema) -> Self:
        names = ("exchange", "symbol", spec.time_column, "received_at")
        return cls(
            *(schema.find_field(name).field_id if name in spec.frame else 0 for name in names)
        )


def _describe(entry: ManifestEntry, manifest: ManifestFile, columns: _Columns) -> DataFileInfo:
    file, sequence = entry.data_file, entry.sequence_number
    lows, highs = file.lower_bounds or {}, file.upper_bounds or {}

    def texts(column: int) -> tuple[str, str] | None:
        if column not in lows or column not in highs:
            return None
        return lows[column].decode(), highs[column].decode()

    def times(column: int) -> tuple[datetime, datetime] | None:
        if column not in lows or column not in highs:
            return None
        return _instant(lows[column]), _instant(highs[column])

    return DataFileInfo(
        path=file.file_path,
        spec_id=manifest.partition_spec_id,
        partition=tuple(file.partition[position] for position in range(len(file.partition))),
        rows=file.record_count,
        bytes=file.file_size_in_bytes,
        # An added file's number is not known before its commit is: it is the manifest's.
        sequence=manifest.sequence_number if sequence is None else sequence,
        exchanges=texts(columns.exchange),
        symbols=texts(columns.symbol),
        times=times(columns.time),
        received=times(columns.received),
    )


def _instant(bound: bytes) -> datetime:
    return EPOCH + timedelta(microseconds=number(bound))


def number(bound: bytes) -> int:
    """Decode days, hours or microseconds; the library's own way costs ten times as much."""
    return int.from_bytes(bound, "little", signed=True)
