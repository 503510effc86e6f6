"""Which data files are live, and which of them may hold the rows asked for.

Planning is done here rather than by the library's scan because three callers need more than it
tells: incremental readers (sequence numbers), slice overwrites (which files lie wholly inside) and
maintenance (which spec a file has). Reading rows out of the files belongs to ``files``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from lakehouse_pipeline.market.windows import TimeWindow

from .slices import Slice
from .tables import HOT, TableSpec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MANIFESTS_REMEMBERED = 512


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

    @property
    def is_hot(self) -> bool:
        return self.spec_id == HOT

    def may_hold(
        self,
        *,
        exchange: str | None = None,
        window: TimeWindow | None = None,
        symbols: Collection[str] | None = None,
    ) -> bool:
        """Tell whether a row of this file can meet all the conditions given."""
        if exchange is not None and not _overlaps(self.exchanges, exchange, exchange):
            return False
        if symbols is not None and not any(_overlaps(self.symbols, name, name) for name in symbols):
            return False
        # A window is half-open and bounds are inclusive: its end must lie after the earliest.
        return window is None or (
            self.times is None or (self.times[0] < window.end and self.times[1] >= window.start)
        )

    def touches(self, slice_: Slice) -> bool:
        return self.may_hold(exchange=slice_.exchange, window=slice_.window, symbols=slice_.symbols)

    def lies_within(self, slice_: Slice) -> bool:
        """Tell whether every row of this file is known to be in *slice_*."""
        if self.exchanges != (slice_.exchange, slice_.exchange) or self.times is None:
            return False
        if slice_.symbols is not None and (
            self.symbols is None
            or self.symbols[0] != self.symbols[1]
            or self.symbols[0] not in slice_.symbols
        ):
            return False
        return slice_.window.start <= self.times[0] and self.times[1] < slice_.window.end


def _overlaps(bounds: tuple[str, str] | None, low: str, high: str) -> bool:
    return bounds is None or (bounds[0] <= high and low <= bounds[1])


class Planner:
    """Lists live files, remembering manifests it has read: they never change.

    One planner serves all threads of a process; a manifest read twice at once is only read twice.
    """

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[DataFileInfo, ...]] = {}

    def live_files(
        self, spec: TableSpec, metadata: TableMetadata, io: FileIO, snapshot: Snapshot | None
    ) -> list[DataFileInfo]:
        """Return the data files of *snapshot*; none if the table has no snapshot yet."""
        if snapshot is None:
            return []
        return [
            file
            for manifest in snapshot.manifests(io)
            if manifest.has_added_files() or manifest.has_existing_files()
            for file in self._files_of(manifest, spec, metadata.schema(), io)
        ]

    def _files_of(
        self, manifest: ManifestFile, spec: TableSpec, schema: Schema, io: FileIO
    ) -> tuple[DataFileInfo, ...]:
        known = self._manifests.get(manifest.manifest_path)
        if known is None:
            known = tuple(
                _describe(entry, spec, schema) for entry in manifest.fetch_manifest_entry(io)
            )
            self._manifests[manifest.manifest_path] = known
            while len(self._manifests) > MANIFESTS_REMEMBERED:
                self._manifests.pop(next(iter(self._manifests)), None)
        return known


def _describe(entry: ManifestEntry, spec: TableSpec, schema: Schema) -> DataFileInfo:
    file = entry.data_file

    def bounds(column: str) -> tuple[Any, Any] | None:
        if column not in spec.frame:
            return None
        field = schema.find_field(column)
        low, high = (
            (each or {}).get(field.field_id) for each in (file.lower_bounds, file.upper_bounds)
        )
        if low is None or high is None:
            return None
        kind: Any = field.field_type  # columns with bounds are primitive
        return from_bytes(kind, low), from_bytes(kind, high)

    times = bounds(spec.time_column)
    assert entry.sequence_number is not None, "the library fills it in on reading"
    return DataFileInfo(
        path=file.file_path,
        spec_id=file.spec_id,
        partition=tuple(file.partition[position] for position in range(len(file.partition))),
        rows=file.record_count,
        bytes=file.file_size_in_bytes,
        sequence=entry.sequence_number,
        exchanges=bounds("exchange"),
        symbols=bounds("symbol"),
        times=None if times is None else (_instant(times[0]), _instant(times[1])),
    )


def _instant(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
