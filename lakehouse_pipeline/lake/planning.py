"""Which data files are live, and which of them may hold the rows asked for.

Planning is done here rather than by the library's scan because three callers need more than it
tells: incremental readers (sequence numbers), slice overwrites (which files lie wholly inside) and
maintenance (which spec a file has). Reading rows out of the files belongs to ``files``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    In,
    LessThan,
)
from pyiceberg.expressions.visitors import inclusive_projection, manifest_evaluator
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from .damage import decoding
from .slices import Selection, Slice
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

    def may_hold(self, selection: Selection) -> bool:
        """Tell whether a row of this file can be selected."""
        exchange, window, symbols = selection.exchange, selection.window, selection.symbols
        return (
            (exchange is None or _between(self.exchanges, exchange))
            and (symbols is None or any(_between(self.symbols, name) for name in symbols))
            # A window is half-open and bounds are inclusive: its end must lie after the earliest.
            and (
                window is None
                or self.times is None
                or (self.times[0] < window.end and self.times[1] >= window.start)
            )
        )

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


def _between(bounds: tuple[str, str] | None, value: str) -> bool:
    return bounds is None or bounds[0] <= value <= bounds[1]


class Planner:
    """Lists live files, remembering manifests it has read: they never change.

    One planner serves all threads of a process; a manifest read twice at once is only read twice.
    """

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[DataFileInfo, ...]] = {}

    def live_files(
        self,
        spec: TableSpec,
        metadata: TableMetadata,
        io: FileIO,
        snapshot: Snapshot | None,
        selection: Selection,
    ) -> list[DataFileInfo]:
        """Return the data files of *snapshot* that may hold rows of *selection*."""
        if snapshot is None:
            return []
        worth_reading = _manifest_filter(spec, metadata, selection)
        files = []
        with decoding(f"Manifest list {snapshot.manifest_list}"):
            manifests = snapshot.manifests(io)
        for manifest in manifests:
            known = self._manifests.get(manifest.manifest_path)
            if known is None and worth_reading(manifest):
                known = self._read(manifest, spec, metadata.schema(), io)
            files += [file for file in known or () if file.may_hold(selection)]
        return files

    def _read(
        self, manifest: ManifestFile, spec: TableSpec, schema: Schema, io: FileIO
    ) -> tuple[DataFileInfo, ...]:
        with decoding(f"Manifest {manifest.manifest_path}"):
            entries = manifest.fetch_manifest_entry(io)
        files = tuple(_describe(entry, spec, schema) for entry in entries)
        self._manifests[manifest.manifest_path] = files
        while len(self._manifests) > MANIFESTS_REMEMBERED:
            self._manifests.pop(next(iter(self._manifests)), None)
        return files


def _manifest_filter(
    spec: TableSpec, metadata: TableMetadata, selection: Selection
) -> Callable[[ManifestFile], bool]:
    """Return a test by the partitions a manifest covers; reading one takes 0.1 ms a file."""
    schema, specs = metadata.schema(), metadata.specs()
    condition = _to_iceberg(spec, selection)

    @functools.cache
    def by_spec(spec_id: int) -> Callable[[ManifestFile], bool]:
        partitions = inclusive_projection(schema, specs[spec_id])(condition)
        return manifest_evaluator(specs[spec_id], schema, partitions)

    def worth_reading(manifest: ManifestFile) -> bool:
        holds_files = manifest.has_added_files() or manifest.has_existing_files()
        return holds_files and by_spec(manifest.partition_spec_id)(manifest)

    return worth_reading


def _to_iceberg(spec: TableSpec, selection: Selection) -> BooleanExpression:
    # Any: mypy's pydantic plugin takes the predicates' fields for their constructors' arguments.
    equal, among, at_least, below = cast("Any", (EqualTo, In, GreaterThanOrEqual, LessThan))
    conditions: list[BooleanExpression] = [AlwaysTrue()]
    if selection.exchange is not None:
        conditions.append(equal("exchange", selection.exchange))
    if selection.symbols is not None:
        conditions.append(among("symbol", selection.symbols))
    if selection.window is not None:
        start, end = selection.window.start, selection.window.end
        conditions.append(at_least(spec.time_column, start.isoformat()))
        conditions.append(below(spec.time_column, end.isoformat()))
    return functools.reduce(And, conditions)


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
