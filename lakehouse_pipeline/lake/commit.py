"""The one way a table changes: files added under their own specs, files removed, properties set.

Only this module and ``transaction`` use private names of pyiceberg; its minor version is pinned and
a contract test watches the names. The library's own producers cannot do three things that we need:

* add files under a spec that is not the default (it writes one manifest, of the default spec);
* commit a REPLACE (its summary refuses the operation);
* retry past every commit that does not touch ours. Its isolation levels validate against history,
  which expiry may have removed; here a retry looks at the head alone: the files it removes must
  still be live, and the guard, if any, must hold there.

Nothing that must be current is written into a snapshot summary: a retried commit would publish a
stale value. Progress is a table property, set in the same transaction. Planning and writing files
belong elsewhere.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    update_snapshot_summaries,
)
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AssertLastAssignedPartitionId,
    SetPropertiesUpdate,
    UpdatesAndRequirements,
)
from pyiceberg.table.update.snapshot import _FastAppendFiles

from lakehouse_pipeline.errors import CommitConflict
from lakehouse_pipeline.telemetry import COMMIT_SECONDS, COMMITS

from .manifests import DataFileInfo
from .metadata import retried, table_name
from .packing import pack
from .planning import may_list
from .progress import Progress, settle
from .transaction import StagedTransaction

MERGED_AT_ONCE = 50  # manifests of a bin that commits add to

Guard = Callable[[Snapshot | None], None]  # raises CommitConflict if the head is not as planned


@dataclass(frozen=True, slots=True)
class Commit:
    """What a change did. ``snapshot_id`` is None if there was nothing to commit."""

    snapshot_id: int | None
    sequence: int
    rows: int
    files_added: int
    files_removed: int


@dataclass(frozen=True, slots=True)
class NewFile:
    """A written file; *sequence* is kept when its rows were in the table before."""

    file: DataFile
    sequence: int | None = None


def append_files(
    table: Table,
    files: Sequence[DataFile],
    *,
    progress: Progress,
    seen: Mapping[str, str | None],
) -> Commit:
    """Add *files* and set *progress* in one transaction, past any concurrent commit.

    Raises:
        CommitConflict: if a property is no longer as *seen*; nothing was committed.
    """
    change = _Change(added=[NewFile(file) for file in files], seen=seen, progress=progress)
    return _commit(table, Operation.APPEND, change)


def check_seen(table: Table, seen: Mapping[str, str | None]) -> None:
    """Raise CommitConflict if a property of *table*, as loaded, is not as *seen*."""
    for key, value in seen.items():
        if table.metadata.properties.get(key) != value:
            raise CommitConflict(
                f"Property {key} of {table_name(table)} has changed.", mend="Look again."
            )


def overwrite_files(
    table: Table,
    *,
    added: Sequence[NewFile],
    removed: Collection[DataFileInfo],
    guard: Guard,
    progress: Progress,
) -> Commit:
    """Put *added* in the place of *removed* in one snapshot, if *guard* holds.

    Without files it is a snapshot nevertheless: only a commit that moves the head is tried again,
    with *progress* renewed, when another came between.

    Raises:
        CommitConflict: if a removed file is gone or the guard refused; nothing was committed.
    """
    # Readers of the format take an overwrite that removes nothing for an append, and so do we.
    operation = Operation.OVERWRITE if removed else Operation.APPEND
    return _commit(table, operation, _Change(added, removed, guard, progress=progress))


def replace_files(
    table: Table, *, added: Sequence[NewFile], removed: Collection[DataFileInfo]
) -> Commit:
    """Put *added*, which hold the same rows, in the place of *removed*.

    Raises:
        CommitConflict: if a removed file is gone; nothing was committed.
    """
    return _commit(table, Operation.REPLACE, _Change(added, removed))


@retried
def add_specs(table: Table, specs: Sequence[PartitionSpec]) -> None:
    """Add the partition specs that *table* lacks; its default spec stays."""
    table.refresh()
    missing = [spec for spec in specs if spec.spec_id not in table.specs()]
    if missing:
        unchanged = AssertLastAssignedPartitionId(
            last_assigned_partition_id=table.metadata.last_partition_id
        )
        with table.transaction() as transaction:
            transaction._apply(  # noqa: SLF001  # this module is where private names are used
                tuple(AddPartitionSpecUpdate(spec=spec) for spec in missing), (unchanged,)
            )


@dataclass(frozen=True)
class _Change:
    added: Sequence[NewFile]
    removed: Collection[DataFileInfo] = ()
    guard: Guard | None = None
    seen: Mapping[str, str | None] = field(default_factory=dict)
    progress: Progress = field(default_factory=dict)


def _commit(table: Table, operation: Operation, change: _Change) -> Commit:
    started = time.perf_counter()
    transaction = StagedTransaction(table)
    producer = _ChangeFiles(operation, transaction, table.io, change)
    try:
        producer.commit()
        transaction.commit_transaction()
    except ValidationException as error:
        producer.clean_up()
        raise CommitConflict(f"A file to be replaced in {table_name(table)} is gone.") from error
    except CommitConflict:
        producer.clean_up()
        raise
    except CommitFailedException as error:
        raise CommitConflict(f"Another writer of {table_name(table)} was always first.") from error
    COMMITS.labels(table_name(table), operation.value).inc()
    COMMIT_SECONDS.labels(table_name(table)).observe(time.perf_counter() - started)
    snapshot = table.snapshot_by_id(producer.snapshot_id)
    assert snapshot is not None, "a committed snapshot is in the metadata returned"
    assert snapshot.sequence_number is not None, "format version 2 numbers every snapshot"
    return Commit(
        snapshot_id=snapshot.snapshot_id,
        sequence=snapshot.sequence_number,
        rows=sum(new.file.record_count for new in change.added),
        files_added=len(change.added),
        files_removed=len(change.removed),
    )


class _ChangeFiles(_FastAppendFiles):
    """Writes the manifests of one change. The base class numbers, retries and cleans up."""

    def __init__(
        self, operation: Operation, transaction: Transaction, io: FileIO, change: _Change
    ) -> None:
        super().__init__(operation, transaction, io)
        self._change = change
        self._added_data_files = [new.file for new in change.added]
        # The library looks the starting snapshot up on a retry; expiry may have taken it by then.
        self._starting_snapshot_id = None

    def clean_up(self) -> None:
        """Delete the manifests; the library does so only once the catalog was asked."""
        self._clean_all_uncommitted()

    def _commit(self) -> UpdatesAndRequirements:
        updates, requirements = super()._commit()
        # Of the refreshed table, as in _validate_concurrency; the last of several settings counts.
        known = self._transaction._table.metadata.properties  # noqa: SLF001  # as above
        if told := settle(self._change.progress, known):
            updates = (SetPropertiesUpdate(updates=told), *updates)
        return updates, requirements

    def _validate_concurrency(self) -> None:
        if self._change.guard is not None:
            self._change.guard(self._transaction.table_metadata.snapshot_by_name("main"))
        # Of the refreshed table: the transaction's own metadata has our new values already.
        check_seen(self._transaction._table, self._change.seen)  # noqa: SLF001  # as above

    def _manifests(self) -> list[ManifestFile]:
        kept, deleted = self._without_removed()
        self._deleted_data_files = {entry.data_file for entry in deleted}
        added = [
            _entry(ManifestEntryStatus.ADDED, self._snapshot_id, new.file, sequence=new.sequence)
            for new in self._change.added
        ]
        # What tells of removed files serves this snapshot alone: the next one leaves it out.
        manifests = [*self._packed([*self._write(added), *kept]), *self._write(deleted)]
        self._require_added()
        return manifests

    def _packed(self, manifests: Sequence[ManifestFile]) -> Iterator[ManifestFile]:
        for few in pack(manifests, self._transaction.table_metadata.specs()):
            just_written = any(each.added_snapshot_id == self._snapshot_id for each in few)
            # To write a bin anew with each commit that adds to it would cost more than planning.
            if len(few) == 1 or (just_written and len(few) < MERGED_AT_ONCE):
                yield from few
            else:
                yield self._merge(few)

    def _merge(self, manifests: Sequence[ManifestFile]) -> ManifestFile:
        with self.new_manifest_writer(self.spec(manifests[0].partition_spec_id)) as writer:
            for entry in chain.from_iterable(map(self.fetch_manifest_entry, manifests)):
                if entry.snapshot_id == self._snapshot_id:
                    writer.add(entry)
                else:
                    writer.existing(entry)
        return writer.to_manifest_file()

    def _require_added(self) -> None:
        """Refuse to publish files that are gone.

        A writer that slept (a lid closed, a frozen container) past the cleaner's guard time wakes
        up with its files deleted as orphans. This runs in each attempt, just before the catalog is
        asked; what is left in between is milliseconds.
        """
        for new in self._change.added:
            if not self._io.new_input(new.file.file_path).exists():
                raise CommitConflict(f"{new.file.file_path} was cleaned away before its commit.")

    def _without_removed(self) -> tuple[list[ManifestFile], list[ManifestEntry]]:
        """Return the parent's manifests without the removed files, and those files' entries."""
        removed = {file.path for file in self._change.removed}
        partitions: dict[int, set[tuple[Any, ...]]] = defaultdict(set)  # by spec
        for file in self._change.removed:
            partitions[file.spec_id].add(file.partition)
        kept: list[ManifestFile] = []
        deleted: list[ManifestEntry] = []
        for manifest in self._parent_manifests():
            here = partitions.get(manifest.partition_spec_id)
            if not removed or here is None or not self._may_list(manifest, here):
                kept.append(manifest)
                continue
            entries = self.fetch_manifest_entry(manifest)
            gone = [entry for entry in entries if entry.data_file.file_path in removed]
            if not gone:
                kept.append(manifest)
                continue
            removed -= {entry.data_file.file_path for entry in gone}
            deleted += [self._again(ManifestEntryStatus.DELETED, entry) for entry in gone]
            kept += self._write(
                self._again(ManifestEntryStatus.EXISTING, entry)
                for entry in entries
                if entry not in gone
            )
        if removed:
            raise ValidationException(f"Not live any more: {', '.join(sorted(removed))}")
        return kept, deleted

    def _may_list(self, manifest: ManifestFile, partitions: set[tuple[Any, ...]]) -> bool:
        kinds = self.spec(manifest.partition_spec_id).partition_type(self.schema()).fields
        return may_list(manifest, [each.field_type for each in kinds], partitions)

    def _parent_manifests(self) -> list[ManifestFile]:
        if self._parent_snapshot_id is None:
            return []
        parent = self._transaction.table_metadata.snapshot_by_id(self._parent_snapshot_id)
        assert parent is not None, "the head of a branch is never expired"
        return [
            manifest
            for manifest in parent.manifests(self._io)
            if manifest.has_added_files() or manifest.has_existing_files()
        ]

    def _again(self, status: ManifestEntryStatus, entry: ManifestEntry) -> ManifestEntry:
        deleting = status == ManifestEntryStatus.DELETED
        return _entry(
            status,
            self._snapshot_id if deleting else entry.snapshot_id,
            entry.data_file,
            sequence=entry.sequence_number,
            file_sequence=entry.file_sequence_number,
        )

    def _write(self, entries: Iterable[ManifestEntry]) -> list[ManifestFile]:
        """Write one manifest for each spec among *entries*."""
        by_spec: dict[int, list[ManifestEntry]] = defaultdict(list)
        for entry in entries:
            by_spec[entry.data_file.spec_id].append(entry)
        written = []
        for spec_id, group in by_spec.items():
            with self.new_manifest_writer(spec=self.spec(spec_id)) as writer:
                for entry in group:
                    writer.add_entry(entry)
            written.append(writer.to_manifest_file())
        return written

    def _summary(self, snapshot_properties: dict[str, str] | None = None) -> Summary:
        metadata = self._transaction.table_metadata
        specs, schema = metadata.specs(), metadata.schema()
        collector = SnapshotSummaryCollector()
        for file in self._added_data_files:
            collector.add_file(file, schema=schema, partition_spec=specs[file.spec_id])
        for file in self._deleted_data_files:
            collector.remove_file(file, schema=schema, partition_spec=specs[file.spec_id])
        parent = (
            None
            if self._parent_snapshot_id is None
            else metadata.snapshot_by_id(self._parent_snapshot_id)
        )
        # The library totals no REPLACE; as an overwrite the sums are the same.
        totals = update_snapshot_summaries(
            Summary(Operation.OVERWRITE, **collector.build(), **(snapshot_properties or {})),
            None if parent is None or parent.summary is None else parent.summary,
        )
        return Summary(self._operation, **totals.additional_properties)


def _entry(
    status: ManifestEntryStatus,
    snapshot_id: int | None,
    file: DataFile,
    *,
    sequence: int | None,
    file_sequence: int | None = None,
) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=sequence,
        file_sequence_number=file_sequence,
        data_file=file,
    )
