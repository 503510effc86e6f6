"""Deleting files that no snapshot refers to: plan, look at it, apply.

Such files are left by expired snapshots, by commits that lost, and by killed writers. Two kinds of
people may still need one: a writer that has made it and not committed yet, and a reader who planned
it before it was replaced. So a file goes only if it is older than the guard time *and* was found
unreachable a guard time ago, by an earlier cleaning that noted it (``condemned``): longer than any
commit with its retries takes, and than any reader holds a frame it has not collected. A day is
ample. A file that is referred to again is no longer condemned.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pyiceberg.table import Table

from lakehouse_pipeline.errors import TableDamaged, UsageError
from lakehouse_pipeline.market.windows import HOUR

from .catalog import typed_errors
from .condemned import Condemned, read_condemned, write_condemned
from .damage import decoding
from .folder import StoredFile, is_ours, list_files, version
from .lakehouse import Lakehouse
from .lineage import doubt, mend

GUARD = timedelta(hours=24)
IN_FLIGHT = HOUR  # no commit takes as long with its retries: what is older is nobody's to be
NO_GUARD = timedelta(0)  # where nobody else reads or writes


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """Files of *table* that nothing referred to when they were listed.

    ``files`` are deleted, ``waiting`` are condemned and wait for their guard time to end.
    """

    table: str
    files: tuple[StoredFile, ...]
    waiting: tuple[StoredFile, ...]
    condemned: Condemned  # both, with when each was found

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Cleaned:
    table: str
    files: int
    bytes: int
    waiting: int = 0  # files condemned, to be deleted by a later cleaning


def checked_guard(guard: timedelta) -> timedelta:
    """Return *guard* if it is long enough to clean beside others.

    Raises:
        UsageError: if a commit may take longer, which would be left without its files.
    """
    if guard < IN_FLIGHT:
        raise UsageError(
            f"A guard time of {guard} is too short: a commit or reader at work may lose its files.",
            mend="Take 1h or more; if nobody else reads or writes, say --alone.",
        )
    return guard


def plan_cleaning(
    lake: Lakehouse, table: str, *, now: datetime, guard: timedelta = GUARD
) -> CleaningPlan:
    """Return what to delete of *table* and what to condemn; nothing is changed or noted yet.

    Raises:
        TableDamaged: if the table cannot be read as a whole, or the catalog may not know all of it.
    """
    with typed_errors(f"listing the files of {table}"):
        loaded, left = unreachable_files(lake, table)
        noted = read_condemned(loaded)
        # An uncommitted file is not condemned: it may be live in between and not be found so.
        settled = now - min(guard, IN_FLIGHT)
        found = [file for file in left if file.modified <= settled and is_ours(loaded, file.path)]
        since = {file.path: noted.since.get(file.path, now) for file in found}
        due = tuple(file for file in found if max(file.modified, since[file.path]) <= now - guard)
        lasting = noted.since.keys() | {file.path for file in due}
        if reason := doubt(loaded, left, lasting=lasting, accepted=noted.accepted):
            raise TableDamaged(reason, mend=mend(loaded))
    waiting = tuple(file for file in found if file not in due)
    still = noted.accepted & {file.path for file in left}
    return CleaningPlan(table, due, waiting, Condemned(since, still))


def apply_cleaning(lake: Lakehouse, plan: CleaningPlan) -> Cleaned:
    """Delete what *plan* names and nothing refers to now, and note what it condemns.

    Gone already is as good as deleted. Killed in between, the next cleaning finds the rest.
    """
    deleted = size = 0
    with typed_errors(f"cleaning {plan.table}"):
        loaded = lake.load(plan.table)
        reachable = reachable_files(lake, loaded)
        for file in plan.files:
            if file.path in reachable:
                continue
            try:
                loaded.io.delete(file.path)
            except FileNotFoundError:
                continue
            deleted, size = deleted + 1, size + file.bytes
            _remove_empty_folders(Path(file.path).parent)
        waiting = {
            file.path: plan.condemned.since[file.path]
            for file in plan.waiting
            if file.path not in reachable
        }
        condemned = Condemned(waiting, plan.condemned.accepted)
        if condemned != read_condemned(loaded):
            write_condemned(loaded, condemned)
    return Cleaned(plan.table, files=deleted, bytes=size, waiting=len(waiting))


def unknown_files(lake: Lakehouse, table: str) -> list[StoredFile]:
    """Return the files of *table*, named as ours are, that the catalog does not know of."""
    with typed_errors(f"listing the files of {table}"):
        loaded, left = unreachable_files(lake, table)
        return [file for file in left if is_ours(loaded, file.path)]


def accept_catalog(lake: Lakehouse, table: str) -> list[StoredFile]:
    """Note that what the catalog does not know of *table* now is of no use; return those files.

    Cleaning is no longer in doubt about them, and deletes them after the guard time.
    """
    files = unknown_files(lake, table)
    metadata = frozenset(file.path for file in files if version(file.path) is not None)
    with typed_errors(f"noting what is accepted of {table}"):
        loaded = lake.load(table)
        write_condemned(loaded, Condemned(read_condemned(loaded).since, metadata))
    return files


def _remove_empty_folders(folder: Path) -> None:
    """Remove a partition's folder, and the one above, if nothing is left in them."""
    # On an object store there are no folders, and the path leads nowhere here.
    for each in (folder, folder.parent):
        with suppress(OSError):
            each.rmdir()


def unreachable_files(lake: Lakehouse, name: str) -> tuple[Table, list[StoredFile]]:
    """Return the table, and the files of its folder that it does not lead to.

    Listed first: what is committed after the listing cannot be in it unless it is reachable.
    """
    stored = list_files(lake.load(name))
    loaded = lake.load(name)
    reachable = reachable_files(lake, loaded)
    return loaded, [file for file in stored if file.path not in reachable]


def reachable_files(lake: Lakehouse, table: Table) -> set[str]:
    """Return every file that the table's metadata leads to, expired metadata excepted."""
    metadata = table.metadata
    reachable = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    reachable |= {statistics.statistics_path for statistics in metadata.statistics}
    for snapshot in metadata.snapshots:
        reachable.add(snapshot.manifest_list)
        with decoding(f"Manifest list {snapshot.manifest_list}"):
            reachable |= {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
        reachable |= {file.path for file in lake.plan(table, snapshot)}
    return reachable
