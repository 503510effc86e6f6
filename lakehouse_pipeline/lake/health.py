"""Is a table whole? Names what is missing, damaged or foreign, and how to mend it; changes nothing.

Add a finding here when it can be seen from the table and its folder alone. What the rows must say
of each other is a check in ``build.proof``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from lakehouse_pipeline.errors import TableDamaged

from .catalog import read_table, typed_errors
from .cleaning import reachable_files
from .condemned import read_condemned
from .folder import StoredFile, is_ours, list_files, version
from .lakehouse import Lakehouse
from .lineage import doubt, mend
from .manifests import DataFileInfo
from .remembering import RememberingCatalog
from .tables import TABLES

SHOWN = 3  # files named in a finding; the others are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a table, in one line, and the mend in another."""

    table: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.table}: {self.problem} {self.mend}"


def examine(lake: Lakehouse) -> list[Finding]:
    """Return what is wrong with any table, worst first within each.

    Args:
        lake: opened without bringing tables up to date, which a damaged one would prevent.
    """
    return [finding for table in TABLES for finding in examine_table(lake, table)]


def examine_table(lake: Lakehouse, name: str) -> Iterator[Finding]:
    """Yield what is wrong with one table; nothing for one that is not made yet."""
    try:
        with typed_errors(f"loading {name}"):
            table = read_table(lake.catalog, name)
    except NoSuchTableError:
        return
    except TableDamaged as error:
        yield Finding(name, error.problem, _mend_metadata(lake.catalog, name))
        return
    with typed_errors(f"listing the files of {name}"):
        stored = {file.path: file for file in list_files(table)}
    try:
        live = lake.plan(table, table.current_snapshot())
        yield from _missing_rows(name, live, stored)
        needed = reachable_files(lake, table)
        # What was listed may have been committed since the table was loaded, and what has been
        # committed since the listing is not in it: the one asks for the table of now, the other
        # for that of then.
        now = lake.load(name)
        reachable = reachable_files(lake, now)
    except TableDamaged as error:
        yield Finding(name, error.problem, _mend_manifest(table))
        return
    current = {file.path for file in live}
    if lost := {path for path in needed - stored.keys() - current if not path.endswith(".json")}:
        yield Finding(
            name,
            f"Files of older snapshots are missing: {_names(lost)}.",
            "The table of now is whole; to travel back to those days, restore them from a backup.",
        )
    unreachable = [file for path, file in stored.items() if path not in reachable]
    noted = read_condemned(now)
    if reason := doubt(now, unreachable, lasting=noted.since, accepted=noted.accepted):
        yield Finding(name, reason, mend(now))
    if foreign := [file.path for file in unreachable if not is_ours(table, file.path)]:
        yield Finding(
            name,
            f"Files in its folder are not of this table: {_names(foreign)}.",
            "They are never read or deleted; move them out of the folder.",
        )


def _missing_rows(
    name: str, live: list[DataFileInfo], stored: dict[str, StoredFile]
) -> Iterator[Finding]:
    gone = [file for file in live if file.path not in stored]
    cut = [file for file in live if file.path in stored and stored[file.path].bytes != file.bytes]
    for files, what in ((gone, "that are missing"), (cut, "of another size than was written")):
        if files:
            rows = sum(file.rows for file in files)
            yield Finding(
                name,
                f"{rows} rows are in files {what}: {_names([file.path for file in files])}.",
                _mend_rows(name, files),
            )


def _mend_rows(name: str, files: list[DataFileInfo]) -> str:
    restore = "Restore the same files from a backup"
    if not name.startswith("market."):
        return f"{restore}; these rows are nowhere else, and reading their days fails until then."
    days = sorted(time.date() for file in files if file.times for time in file.times)
    exchanges = sorted({file.exchanges[0] for file in files if file.exchanges})
    if not days or not exchanges:
        return f"{restore}."
    return (
        f"{restore}, or rebuild each day as a whole: "
        f"lakehouse build --exchange {exchanges[0]} --from {days[0]} --to {days[-1]}"
        f"{' (and for ' + ', '.join(exchanges[1:]) + ')' if exchanges[1:] else ''}."
    )


def _mend_metadata(catalog: Catalog, name: str) -> str:
    pointer = catalog.pointer(name) if isinstance(catalog, RememberingCatalog) else None
    where = f"{pointer} " if pointer else "the metadata file the catalog names "
    return f"Restore {where}from a backup, or catalog and warehouse together. Nothing was deleted."


def _mend_manifest(table: Table) -> str:
    intact = [
        entry.metadata_file
        for entry in table.metadata.metadata_log
        if version(entry.metadata_file) is not None
    ]
    older = f" The metadata before it is {intact[-1]}." if intact else ""
    return f"Restore that file from a backup.{older} Nothing was deleted."


def _names(paths: list[str] | set[str]) -> str:
    shown = sorted(paths)[:SHOWN]
    rest = len(paths) - len(shown)
    return f"{', '.join(shown)}{f' and {rest} more' if rest else ''}"
