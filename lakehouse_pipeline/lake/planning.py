"""Which data files are live, and which of them may hold the rows asked for.

Planning is done here rather than by the library's scan because three callers need more than it
tells: incremental readers (sequence numbers), slice overwrites (which files lie wholly inside) and
maintenance (which spec a file has). Reading rows out of the files belongs to ``files``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry, ManifestFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import DayTransform, HourTransform
from pyiceberg.types import IcebergType

from lakehouse_pipeline.market.windows import DAY, HOUR

from .damage import decoding
from .slices import Selection
from .tables import HOT, TableSpec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LISTS_REMEMBERED, MANIFESTS_REMEMBERED = 64, 512

Value = TypeVar("Value")
Partitions = Collection[tuple[Any, ...]]  # values as the spec's transforms make them


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


@dataclass(frozen=True, slots=True)
class _Manifest:
    """A manifest and which partitions its files lie in."""

    file: ManifestFile
    ranges: tuple[tuple[str, Any, Any], ...]  # selection's condition, inclusive bounds

    def may_hold(self, selection: Selection) -> bool:
        """Tell whether a file of this manifest can hold a row that is selected."""
        return all(_meets(selection, *each) for each in self.ranges)


def _meets(selection: Selection, condition: str, low: Any, high: Any) -> bool:
    """Tell whether a partition in [low, high] can hold selected rows; Any as partitions are."""
    if condition == "exchange":
        return selection.exchange is None or low <= selection.exchange <= high
    if condition == "symbol":
        return selection.symbols is None or any(low <= name <= high for name in selection.symbols)
    if condition == "hour received":
        since = selection.received_since
        return since is None or EPOCH + (high + 1) * HOUR > since
    step = DAY if condition == "day" else HOUR
    window = selection.window
    return window is None or (
        EPOCH + low * step < window.end and EPOCH + (high + 1) * step > window.start
    )


class Planner:
    """Lists live files, remembering the lists and manifests it has read: they never change.

    One planner serves all threads of a process; a manifest read twice at once is only read twice.
    """

    def __init__(self) -> None:
        self._lists: dict[str, tuple[_Manifest, ...]] = {}
        self._manifests: dict[str, tuple[DataFileInfo, ...]] = {}

    def live_files(
        self,
        spec: TableSpec,
        metadata: TableMetadata,
        io: FileIO,
        snapshot: Snapshot | None,
        selection: Selection,
        after: int = 0,
    ) -> list[DataFileInfo]:
        """Return the data files of *snapshot* that may hold rows of *selection*.

        Only those with a sequence number greater than *after*: what was committed since is in the
        newest manifests, so a consumer's cost does not grow with the table.
        """
        if snapshot is None:
            return []
        manifests = self._lists.get(snapshot.manifest_list)
        if manifests is None:
            manifests = _read_list(snapshot, spec, metadata, io)
            _remember(self._lists, snapshot.manifest_list, manifests, LISTS_REMEMBERED)
        files = []
        for manifest in manifests:
            # A file's number may be lower than its manifest's (sealing keeps it), never higher.
            if manifest.file.sequence_number <= after or not manifest.may_hold(selection):
                continue
            path = manifest.file.manifest_path
            known = self._manifests.get(path)
            if known is None:
                known = _read_manifest(manifest.file, spec, metadata.schema(), io)
                _remember(self._manifests, path, known, MANIFESTS_REMEMBERED)
            files += [file for file in known if file.sequence > after and file.may_hold(selection)]
        return files


def _remember(memory: MutableMapping[str, Value], key: str, value: Value, limit: int) -> None:
    memory[key] = value
    while len(memory) > limit:
        memory.pop(next(iter(memory)), None)


def may_list(manifest: ManifestFile, kinds: Sequence[IcebergType], partitions: Partitions) -> bool:
    """Tell whether *manifest* can list a file of one of *partitions*.

    *kinds* are the types of its spec's partition values.
    """
    bounds = [
        (position, *_bounds(kind, summary.lower_bound, summary.upper_bound))
        for position, (kind, summary) in enumerate(
            zip(kinds, manifest.partitions or (), strict=False)
        )
        if summary.lower_bound is not None and summary.upper_bound is not None
    ]
    return any(all(low <= each[at] <= high for at, low, high in bounds) for each in partitions)


def _bounds(kind: Any, low: bytes, high: bytes) -> tuple[Any, Any]:
    """Decode both bounds of a value of *kind*, which is primitive."""
    return from_bytes(kind, low), from_bytes(kind, high)


def _read_list(
    snapshot: Snapshot, spec: TableSpec, metadata: TableMetadata, io: FileIO
) -> tuple[_Manifest, ...]:
    with decoding(f"Manifest list {snapshot.manifest_list}"):
        manifests = [
            manifest
            for manifest in snapshot.manifests(io)
            if manifest.has_added_files() or manifest.has_existing_files()
        ]
        # Once for all manifests of a spec: it costs more than to read what one of them says.
        conditions = {
            spec_id: tuple(_conditions(partitioning, spec, metadata.schema()))
            for spec_id, partitioning in metadata.specs().items()
        }
        return tuple(
            _Manifest(manifest, tuple(_ranges(manifest, conditions[manifest.partition_spec_id])))
            for manifest in manifests
        )


def _conditions(
    partitioning: PartitionSpec, spec: TableSpec, schema: Schema
) -> Iterator[tuple[int, str, IcebergType]]:
    """Yield the place, the name and the type of partition values that a selection can ask for."""
    kinds = partitioning.partition_type(schema).fields
    for place, (field, kind) in enumerate(zip(partitioning.fields, kinds, strict=True)):
        column = schema.find_column_name(field.source_id)
        if column in ("exchange", "symbol"):
            yield place, column, kind.field_type
        elif column == spec.time_column and isinstance(field.transform, DayTransform):
            yield place, "day", kind.field_type
        elif column == spec.time_column and isinstance(field.transform, HourTransform):
            yield place, "hour", kind.field_type
        elif column == "received_at" and isinstance(field.transform, HourTransform):
            yield place, "hour received", kind.field_type


def _ranges(
    manifest: ManifestFile, conditions: Sequence[tuple[int, str, IcebergType]]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the bounds of each of *conditions* that the manifest tells of its files' partitions."""
    summaries = manifest.partitions or ()
    for place, condition, kind in conditions:
        if place < len(summaries):
            low, high = summaries[place].lower_bound, summaries[place].upper_bound
            if low is not None and high is not None:
                yield condition, *_bounds(kind, low, high)


def _read_manifest(
    manifest: ManifestFile, spec: TableSpec, schema: Schema, io: FileIO
) -> tuple[DataFileInfo, ...]:
    with decoding(f"Manifest {manifest.manifest_path}"):
        entries = manifest.fetch_manifest_entry(io)
    return tuple(_describe(entry, spec, schema) for entry in entries)


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
        return _bounds(field.field_type, low, high)

    def span(column: str) -> tuple[datetime, datetime] | None:
        edges = bounds(column)
        return None if edges is None else (_instant(edges[0]), _instant(edges[1]))

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
        times=span(spec.time_column),
        received=span("received_at"),
    )


def _instant(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
