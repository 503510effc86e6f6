"""Deleting files that no snapshot refers to: plan, look at it, apply.

Such files are left by expired snapshots, by commits that lost, and by killed writers. A file that
a writer has made and not yet committed looks the same, so only files older than a guard time are
planned, longer than any commit with its retries takes. A reader may hold a frame it has not
collected yet, so no file is planned either that was live at any time in the guard time, however old
it is: compaction takes files away that are. A day is ample for both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from lakehouse_pipeline.errors import TableDamaged

from .catalog import typed_errors
from .damage import decoding
from .folder import StoredFile, is_ours, list_files, lists_manifests, version
from .lakehouse import Lakehouse
from .metadata import table_name

GUARD = timedelta(hours=24)
LISTS_LOOKED_AT = 3
IN_DOUBT = (
    "Nothing is deleted. Was the catalog restored or made anew? Bring back its newest backup; if "
    "the files are of no use, move them out of the folder."
)


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """Files of *table* that nothing referred to when they were listed."""

    table: str
    files: tuple[StoredFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Cleaned:
    table: str
    files: int
    bytes: int


def plan_cleaning(lake: Lakehouse, table: str, *, older_than: datetime) -> CleaningPlan:
    """Return the files of *table* that nothing refers to, nor did at *older_than* or since.

    Raises:
        TableDamaged: if the table cannot be read as a whole, or the catalog may not know all of it.
    """
    with typed_errors(f"listing the files of {table}"):
        # List first: what is committed after the listing cannot be in it unless it is reachable.
        stored = list_files(lake.load(table))
        reachable, loaded = reachable_files(lake, table), lake.load(table)
        reachable |= lately_live(lake, loaded, stored, since=older_than)
        left = [file for file in stored if file.path not in reachable]
        old = tuple(file for file in left if file.modified < older_than)
        if reason := doubt(loaded, old):
            raise TableDamaged(reason, mend=IN_DOUBT)
    return CleaningPlan(table, tuple(file for file in old if is_ours(loaded, file.path)))


def apply_cleaning(lake: Lakehouse, plan: CleaningPlan) -> Cleaned:
    """Delete what *plan* names and nothing refers to now; gone already is as good as deleted."""
    deleted = size = 0
    with typed_errors(f"cleaning {plan.table}"):
        io, reachable = lake.load(plan.table).io, reachable_files(lake, plan.table)
        for file in plan.files:
            if file.path in reachable:
                continue
            try:
                io.delete(file.path)
            except FileNotFoundError:
                continue
            deleted, size = deleted + 1, size + file.bytes
            _remove_empty_folders(Path(file.path).parent)
    return Cleaned(table=plan.table, files=deleted, bytes=size)


def lately_live(
    lake: Lakehouse, table: Table, stored: Iterable[StoredFile], *, since: datetime
) -> set[str]:
    """Return what was live at *since*, if the snapshot of then is forgotten.

    What was live later and is not in it was written later, so this one is enough. It is the newest
    manifest list from before; of a failed attempt it looks almost the same, so a few are taken.
    """
    metadata, limit = table.metadata, since.timestamp() * 1000
    tagged = {ref.snapshot_id for name, ref in metadata.refs.items() if name != MAIN_BRANCH}
    tagged.discard(metadata.current_snapshot_id or 0)
    kept = [each for each in metadata.snapshots if each.snapshot_id not in tagged]
    if not kept or min(each.timestamp_ms for each in kept) < limit:
        return set()
    lists = [file for file in stored if lists_manifests(file.path) and file.modified < since]
    lists.sort(key=lambda file: file.modified)
    live: set[str] = set()
    for file in lists[-LISTS_LOOKED_AT:]:
        snapshot = Snapshot(snapshot_id=0, sequence_number=0, manifest_list=file.path)
        # One that is cut short, or leads to files that are gone, leads no reader anywhere.
        with suppress(TableDamaged, FileNotFoundError):
            live |= _files_of(lake, table, snapshot)
    return live


def _remove_empty_folders(folder: Path) -> None:
    """Remove a partition's folder, and the one above, if nothing is left in them."""
    # On an object store there are no folders, and the path leads nowhere here.
    for each in (folder, folder.parent):
        with suppress(OSError):
            each.rmdir()


def doubt(table: Table, unreachable: Iterable[StoredFile]) -> str | None:
    """Return why the catalog may not know all that the folder of *table* holds; None if it does."""
    folder, known = f"The folder of {table_name(table)}", version(table.metadata_location)
    metadata = [
        (file.path, number) for file in unreachable if (number := version(file.path)) is not None
    ]
    for path, _ in metadata:
        if (owner := _table_uuid(table, path)) not in (None, str(table.metadata.table_uuid)):
            return f"{folder} holds {path} of another table, {owner}."
    for path, number in metadata:
        # One ahead is what a writer leaves that was killed just before the catalog knew.
        if known is not None and number > known + 1:
            return f"{folder} holds {path}, newer than what the catalog knows, number {known}."
    return None


def _table_uuid(table: Table, path: str) -> str | None:
    """Return which table a metadata file is of; None if it is gone or unreadable."""
    try:
        with decoding(path), table.io.new_input(path).open() as stream:
            return str(json.loads(stream.read())["table-uuid"])
    except (TableDamaged, FileNotFoundError):
        return None


def reachable_files(lake: Lakehouse, name: str) -> set[str]:
    """Return every file that the table's metadata leads to, expired metadata excepted."""
    table = lake.load(name)
    metadata = table.metadata
    reachable = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    reachable |= {statistics.statistics_path for statistics in metadata.statistics}
    for snapshot in metadata.snapshots:
        reachable |= _files_of(lake, table, snapshot)
    return reachable


def _files_of(lake: Lakehouse, table: Table, snapshot: Snapshot) -> set[str]:
    with decoding(f"Manifest list {snapshot.manifest_list}"):
        manifests = {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
    files = {file.path for file in lake.plan(table, snapshot)}
    return {snapshot.manifest_list, *manifests, *files}
