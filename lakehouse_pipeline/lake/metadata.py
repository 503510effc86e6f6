"""Changes of a table's metadata alone: properties, tags, expiry.

The library retries only commits that make a snapshot; each change here is tried again on fresh
metadata instead. Changes that make a snapshot belong to ``commit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import stamina
import structlog
from pydantic import Field
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AssertTableUUID, UpdatesAndRequirements
from pyiceberg.table.update.snapshot import ExpireSnapshots

from lakehouse_pipeline.errors import CommitConflict

from .tables import SNAPSHOTS_KEPT
from .transaction import StagedTransaction

log = structlog.get_logger()

EXPIRED_AT_ONCE = 10  # expiring is a commit too: not after each snapshot

retried = stamina.retry(
    on=CommitFailedException, attempts=20, timeout=None, wait_initial=0.02, wait_max=2.0
)


def table_name(table: Table) -> str:
    return ".".join(table.name())


@retried
def set_properties(table: Table, properties: Mapping[str, str]) -> None:
    """Set *properties* without a snapshot."""
    table.refresh()
    with table.transaction() as transaction:
        transaction.set_properties(dict(properties))


@retried
def remove_properties(table: Table, names: Iterable[str]) -> None:
    """Remove those of *names* that are set."""
    table.refresh()
    if present := sorted(set(names) & table.properties.keys()):
        with table.transaction() as transaction:
            transaction.remove_properties(*present)


def old_snapshots(table: Table, *, keep: int) -> list[int]:
    """Return the IDs of snapshots beyond the newest *keep*, those with a tag excepted."""
    tagged = {ref.snapshot_id for ref in table.metadata.refs.values()}
    by_age = sorted(table.metadata.snapshots, key=lambda each: each.sequence_number or 0)
    return [each.snapshot_id for each in by_age[:-keep] if each.snapshot_id not in tagged]


def expire_if_many(table: Table) -> None:
    """Expire once enough has gathered; every kind of commit that makes a snapshot calls it."""
    if len(old_snapshots(table, keep=SNAPSHOTS_KEPT)) >= EXPIRED_AT_ONCE:
        expire_snapshots(table, keep=SNAPSHOTS_KEPT)


def expire_snapshots(table: Table, *, keep: int) -> int:
    """Forget snapshots beyond the newest *keep*, never one with a tag; return how many.

    Metadata only: the files they alone refer to are the cleaner's.
    """
    try:
        return _expire_snapshots(table, keep)
    except CommitFailedException:
        # The next commit finds more to expire and tries again.
        log.warning("expiry_postponed", table=table_name(table))
        return 0


class _Untagged(AssertTableUUID):
    """The table is the same, and nobody tagged any of *snapshots* since they were chosen.

    Looked at where the commit is made: here for SQL catalogs. A REST server sees the first half,
    which is all that the format's requirements can say.
    """

    snapshots: frozenset[int] = Field(exclude=True)

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # as the library's
        super().validate(base_metadata)
        refs = base_metadata.refs if base_metadata is not None else {}
        tagged = [name for name, ref in refs.items() if ref.snapshot_id in self.snapshots]
        if tagged:
            raise CommitFailedException(f"Tagged meanwhile: {', '.join(tagged)}")


class _Expiry(ExpireSnapshots):
    """The library's, which takes along a tag that another process set since it was planned."""

    def _commit(self) -> UpdatesAndRequirements:
        updates, requirements = super()._commit()
        chosen = frozenset(self._snapshot_ids_to_expire)
        same = _Untagged(uuid=self._transaction.table_metadata.table_uuid, snapshots=chosen)
        return updates, (*requirements, same)


@retried
def _expire_snapshots(table: Table, keep: int) -> int:
    table.refresh()
    old = old_snapshots(table, keep=keep)
    if not old:
        return 0
    try:
        with StagedTransaction(table) as transaction:
            _Expiry(transaction).by_ids(old).commit()
    except ValueError as error:
        # What the library raises when another process has expired one of them since.
        raise CommitFailedException(str(error)) from error
    return len(old)


@retried
def tag_snapshot(table: Table, name: str, snapshot_id: int, *, prefix: str, keep: int) -> None:
    """Give *name* to a snapshot, taken from another if need be; keep *keep* tags with *prefix*.

    Raises:
        CommitConflict: if the snapshot has been expired.
    """
    table.refresh()
    if table.snapshot_by_id(snapshot_id) is None:
        raise CommitConflict(f"Snapshot {snapshot_id} of {table_name(table)} is gone.")
    tags = {tag: ref.snapshot_id for tag, ref in table.refs().items() if tag.startswith(prefix)}
    kept = sorted({*tags, name}, reverse=True)[:keep]
    try:
        with table.manage_snapshots() as changes:
            if name in kept and tags.get(name) != snapshot_id:
                changes.create_tag(snapshot_id, name)
            for tag in tags.keys() - set(kept):
                changes.remove_tag(tag)
    except ValueError as error:
        # What the library raises when the snapshot has been expired since; the next look tells.
        raise CommitFailedException(str(error)) from error
