"""Which data files are live, and which of them may hold the rows asked for.

Planning is done here rather than by the library's scan because three callers need more than it
tells: incremental readers (sequence numbers), slice overwrites (which files lie wholly inside) and
maintenance (which spec a file has). Reading rows out of the files belongs to ``files``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import DayTransform, HourTransform

from lakehouse_pipeline.market.windows import DAY, HOUR

from .damage import decoding
from .manifests import EPOCH, DataFileInfo, number, read_manifest
from .slices import Selection
from .tables import TableSpec

LISTS_REMEMBERED, MANIFESTS_REMEMBERED = 64, 512

Value = TypeVar("Value")
Partitions = Collection[tuple[Any, ...]]  # values as the spec's transforms make them
Meets = Callable[[Selection, bytes, bytes], bool]  # of a partition's value in [low, high]


class Planner:
    """Lists live files, remembering the lists and manifests it has read: they never change.

    One planner serves all threads of a process; a manifest read twice at once is only read twice.
    """

    def __init__(self) -> None:
        self._lists: dict[str, _List] = {}
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
        listed = self._lists.get(snapshot.manifest_list)
        if listed is None:
            listed = _List.read(snapshot, spec, metadata, io)
            _remember(self._lists, snapshot.manifest_list, listed, LISTS_REMEMBERED)
        files = []
        for manifest in listed.manifests:
            # A file's number may be lower than its manifest's (sealing keeps it), never higher.
            if manifest.sequence_number <= after or not listed.may_hold(manifest, selection):
                continue
            path = manifest.manifest_path
            known = self._manifests.get(path)
            if known is None:
                known = read_manifest(manifest, spec, metadata.schema(), io)
                _remember(self._manifests, path, known, MANIFESTS_REMEMBERED)
            files += [file for file in known if file.sequence > after and file.may_hold(selection)]
        return files


def _remember(memory: MutableMapping[str, Value], key: str, value: Value, limit: int) -> None:
    memory[key] = value
    while len(memory) > limit:
        memory.pop(next(iter(memory)), None)


def may_list(manifest: ManifestFile, kinds: Sequence[Any], partitions: Partitions) -> bool:
    """Tell whether *manifest* can list a file of one of *partitions*.

    *kinds* are the primitive types of its spec's partition values.
    """
    bounds = [
        (position, from_bytes(kind, summary.lower_bound), from_bytes(kind, summary.upper_bound))
        for position, (kind, summary) in enumerate(
            zip(kinds, manifest.partitions or (), strict=False)
        )
        if summary.lower_bound is not None and summary.upper_bound is not None
    ]
    return any(all(low <= each[at] <= high for at, low, high in bounds) for each in partitions)


@dataclass(frozen=True, slots=True)
class _List:
    """The manifests of a snapshot that list live files, and how to tell whether one matters."""

    manifests: tuple[ManifestFile, ...]
    conditions: Mapping[int, tuple[tuple[int, Meets], ...]]  # by spec: place in the partition

    @classmethod
    def read(cls, snapshot: Snapshot, spec: TableSpec, metadata: TableMetadata, io: FileIO) -> Self:
        with decoding(f"Manifest list {snapshot.manifest_list}"):
            manifests = tuple(
                manifest
                for manifest in snapshot.manifests(io)
                if manifest.has_added_files() or manifest.has_existing_files()
            )
        return cls(
            manifests,
            {
                spec_id: tuple(_conditions(partitioning, spec, metadata.schema()))
                for spec_id, partitioning in metadata.specs().items()
            },
        )

    def may_hold(self, manifest: ManifestFile, selection: Selection) -> bool:
        """Tell whether a file of *manifest* can hold a row that is selected."""
        # Nothing is decoded ahead: a list has hundreds of manifests, and most fail at their day.
        summaries = manifest.partitions or ()
        for place, meets in self.conditions[manifest.partition_spec_id]:
            if place < len(summaries):
                low, high = summaries[place].lower_bound, summaries[place].upper_bound
                if low is not None and high is not None and not meets(selection, low, high):
                    return False
        return True


def _conditions(
    partitioning: PartitionSpec, spec: TableSpec, schema: Schema
) -> Iterator[tuple[int, Meets]]:
    """Yield the places of partition values that a selection asks for, and how it asks."""
    for place, field in enumerate(partitioning.fields):
        column, by = schema.find_column_name(field.source_id), field.transform
        if column == "exchange":
            yield place, _meets_exchange
        elif column == "symbol":
            yield place, _meets_symbols
        elif column == spec.time_column and isinstance(by, DayTransform | HourTransform):
            yield place, _meets_day if isinstance(by, DayTransform) else _meets_hour
        elif column == "received_at" and isinstance(by, HourTransform):
            yield place, _meets_hour_received


def _meets_exchange(selection: Selection, low: bytes, high: bytes) -> bool:
    return selection.exchange is None or low.decode() <= selection.exchange <= high.decode()


def _meets_symbols(selection: Selection, low: bytes, high: bytes) -> bool:
    if selection.symbols is None:
        return True
    first, last = low.decode(), high.decode()
    return any(first <= symbol <= last for symbol in selection.symbols)


def _meets_day(selection: Selection, low: bytes, high: bytes) -> bool:
    return _meets_window(selection, DAY, low, high)


def _meets_hour(selection: Selection, low: bytes, high: bytes) -> bool:
    return _meets_window(selection, HOUR, low, high)


def _meets_window(selection: Selection, step: timedelta, low: bytes, high: bytes) -> bool:
    window = selection.window
    return window is None or (
        EPOCH + number(low) * step < window.end and EPOCH + (number(high) + 1) * step > window.start
    )


def _meets_hour_received(selection: Selection, _low: bytes, high: bytes) -> bool:
    since = selection.received_since
    return since is None or EPOCH + (number(high) + 1) * HOUR > since
