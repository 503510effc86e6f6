"""The lake's public face: open, read, append, overwrite a slice.

Frames go in and out in the schema of ``market.schemas``. Maintenance (seal, compact, expire,
clean, tags) is in ``maintenance``; how a change becomes a snapshot in ``commit``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from types import TracebackType
from typing import Self

import polars as pl
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from lakehouse_pipeline.errors import CommitConflict, UsageError
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.settings import Settings

from .catalog import load_table, open_catalog, prepare_tables, typed_errors
from .commit import (
    Commit,
    Guard,
    NewFile,
    append_files,
    check_seen,
    overwrite_files,
)
from .files import discard, scan_files, storage_options, write_files
from .manifests import DataFileInfo
from .metadata import (
    expire_if_many,
    remove_properties,
    set_properties,
    table_name,
)
from .planning import Planner
from .progress import Noted, Progress, settle
from .removals import MICROSECOND, Removals, removals_key
from .slices import EVERYTHING, Selection, Slice
from .tables import SEALED, TABLES, TableSpec


class Lakehouse:
    """The tables of one catalog. Threads may share it; each process opens its own.

    Every method may raise ``CatalogUnreachable``, ``StateDirectoryError`` or ``TableDamaged``.
    After any error but ``CommitConflict`` a write may or may not have landed: look at
    ``progress``, which is set with the rows or not at all.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._planner = Planner()
        self.storage = storage_options(catalog.properties)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the catalog of *settings*; create or bring up to date what it lacks.

        Raises:
            CatalogUnreachable, StateDirectoryError: with the mend in the message.
            CatalogTooNew: if a newer version of this project has written it.
        """
        catalog = open_catalog(settings)
        prepare_tables(catalog)
        return cls(catalog)

    @classmethod
    def inspect(cls, settings: Settings) -> Self:
        """Open the catalog of *settings* as it is: a damaged table is no reason not to look."""
        return cls(open_catalog(settings))

    def close(self) -> None:
        self.catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Reading.

    def scan(
        self,
        table: str,
        *,
        window: TimeWindow | None = None,
        exchange: str | None = None,
        symbols: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
        after_sequence: int | None = None,
        received_since: datetime | None = None,
        snapshot: int | str | None = None,
    ) -> pl.LazyFrame:
        """Return the rows that meet every condition given.

        Rows of sealed files come in the table's order, as far as their times do not overlap; it
        is cheaper to look that up than to sort them again. Nothing is promised of hot ones.
        The files are chosen now, so the frame shows one snapshot however late it is collected
        (within the cleaner's guard time).

        Args:
            table: the identifier, such as ``raw.quotes``.
            window: of the table's time column.
            exchange: rows of this exchange alone.
            symbols: full names.
            columns: these, in this order; all in schema order by default.
            after_sequence: only data files with a greater sequence number.
            received_since: rows received then or later, of tables that have ``received_at``.
            snapshot: a snapshot ID or a tag; the head by default.
        """
        spec = _spec(table)
        names = None if symbols is None else tuple(symbols)
        selection = Selection(exchange, window, names, received_since)
        loaded = self.load(table)
        chosen = _snapshot(loaded, snapshot)
        files = self.plan(loaded, chosen, selection, after=after_sequence or 0)
        scans = []
        for is_whole, group in groupby(
            sorted(files, key=DataFileInfo.begins), lambda file: file.lies_within(selection)
        ):
            found = scan_files([file.path for file in group], spec, storage=self.storage)
            # Rows that are all selected need no look: a sealed day reads as fast as its file.
            scans.append(found if is_whole else found.filter(selection.rows(spec.time_column)))
        if not scans:
            scans.append(spec.empty.lazy())
        rows = scans[0] if len(scans) == 1 else pl.concat(scans)
        return rows if columns is None else rows.select(columns)

    def head(self, table: str) -> int:
        """Return the sequence number of the newest snapshot; 0 if there is none."""
        snapshot = self.load(table).current_snapshot()
        return 0 if snapshot is None else snapshot.sequence_number or 0

    def snapshot_id(self, table: str) -> int | None:
        """Return the ID of the newest snapshot."""
        snapshot = self.load(table).current_snapshot()
        return None if snapshot is None else snapshot.snapshot_id

    def tags(self, table: str) -> dict[str, int]:
        """Return the snapshot ID of each tag."""
        refs = self.load(table).refs()
        return {name: ref.snapshot_id for name, ref in refs.items() if name != "main"}

    def progress(self, table: str, key: str) -> int | None:
        """Return what the last commit that set *key* set it to."""
        value = self.load(table).properties.get(key)
        return None if value is None else int(value)

    def note(self, table: str, key: str) -> str | None:
        """Return what the last commit that set *key* wrote there, as text."""
        return self.load(table).properties.get(key)

    def progress_by(self, table: str, prefix: str) -> dict[str, int]:
        """Return every progress of *table* whose key starts with *prefix*, by the rest of it."""
        return {
            key.removeprefix(prefix): int(value)
            for key, value in self.load(table).properties.items()
            if key.startswith(prefix)
        }

    def touched_since(self, table: str, sequence: int, exchange: str) -> list[DataFileInfo]:
        """Return the data files of *exchange* with rows newer than *sequence*."""
        loaded = self.load(table)
        return self.plan(loaded, loaded.current_snapshot(), Selection(exchange), after=sequence)

    def changed_since(self, table: str, sequence: int, exchange: str) -> list[TimeWindow]:
        """Return when rows of *exchange* lie that came, or were taken away, after *sequence*."""
        loaded = self.load(table)
        files = self.plan(loaded, loaded.current_snapshot(), Selection(exchange), after=sequence)
        came = [
            TimeWindow(file.times[0], file.times[1] + MICROSECOND)
            for file in files
            if file.times is not None
        ]
        return came + Removals.of(loaded.properties, exchange).since(sequence)

    def files(self, table: str) -> pl.DataFrame:
        """Return the live data files: path, spec, partition, rows, bytes, sequence."""
        return pl.DataFrame(
            [
                (
                    file.path,
                    "hot" if file.is_hot else "sealed",
                    "/".join(str(value) for value in file.partition),
                    file.rows,
                    file.bytes,
                    file.sequence,
                )
                for file in self.live_files(table)
            ],
            schema={
                "path": pl.String,
                "spec": pl.String,
                "partition": pl.String,
                "rows": pl.Int64,
                "bytes": pl.Int64,
                "sequence": pl.Int64,
            },
            orient="row",
        )

    def live_files(
        self,
        table: str,
        selection: Selection = EVERYTHING,
        *,
        snapshot: int | str | None = None,
    ) -> list[DataFileInfo]:
        """Return the data files that may hold rows of *selection*, now or in a snapshot or tag."""
        loaded = self.load(table)
        return self.plan(loaded, _snapshot(loaded, snapshot), selection)

    # Writing.

    def append(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        progress: Mapping[str, Noted] | None = None,
        seen: Mapping[str, int | None] | None = None,
    ) -> Commit:
        """Add *frame* and set *progress* in one transaction; an empty frame only the latter.

        Args:
            table: the identifier.
            frame: in the table's schema.
            progress: table properties set in the same transaction.
            seen: what ``progress`` said of keys when the caller chose these rows. An append whose
                outcome was unknown may still land after that look.

        Raises:
            CommitConflict: if a key is no longer as *seen*, or other writers were first for two
                dozen times; nothing landed.
        """
        spec, loaded = _spec(table), self.load(table)
        properties = settle(progress or {}, {})
        expected = {key: None if at is None else str(at) for key, at in (seen or {}).items()}
        check_seen(loaded, expected)
        with typed_errors(f"appending to {table}"):
            if frame.is_empty():
                if properties.items() - loaded.properties.items():
                    set_properties(loaded, properties)
                return _nothing(loaded)
            files = write_files(loaded, spec, frame, spec_id=spec.landing)
            try:
                commit = append_files(loaded, files, progress=properties, seen=expected)
            except CommitConflict:
                discard(loaded.io, files)
                raise
            return self._committed(loaded, commit)

    def overwrite(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        slice: Slice,  # noqa: A002  # the word for it everywhere
        progress: Progress | None = None,
        since: int | None = None,
    ) -> Commit:
        """Put *frame* in the place of exactly the rows of *slice*, in one snapshot.

        Files wholly inside are dropped, files partly inside rewritten without the slice's rows.
        The new rows become sealed files if the slice spans whole days, else hot ones.

        Args:
            table: the identifier.
            frame: rows of the slice alone.
            slice: what is replaced.
            progress: table properties set in the same transaction; functions are of what they say
                when it lands.
            since: the table's ``head`` when the caller began to read; writes into the slice
                after it are conflicts as well, not only those during this call.

        Raises:
            CommitConflict: if somebody else changed the slice; nothing landed. Read again,
                compute again.
            ValueError: if a row of *frame* is not in *slice*.
        """
        spec, loaded = _spec(table), self.load(table)
        inside = slice.selection.rows(spec.time_column)
        if not frame.select(inside.fill_null(value=False).all()).item():
            raise ValueError(f"the frame holds rows outside {slice}")
        with typed_errors(f"overwriting a slice of {table}"):
            head = loaded.current_snapshot()
            known = since if since is not None else (0 if head is None else head.sequence_number)
            guard = self._guard(loaded, slice, known or 0)
            guard(head)
            removed, survivors = self._carve(loaded, slice, head)
            spec_id = SEALED if slice.spans_whole_days else spec.landing
            added = [NewFile(file) for file in self._write(loaded, frame, spec_id)]
            added += survivors
            noted: Progress = progress or {}
            if removed:
                noted = {**noted, **_removal(loaded, slice, removed)}
            elif not added:
                told = settle(noted, loaded.properties)
                is_news = told.items() - loaded.properties.items()
                # A renewal needs a commit that is tried again if it is overtaken: a snapshot.
                if not (is_news and any(map(callable, noted.values()))):
                    return self.append(table, frame, progress=told)
            try:
                commit = overwrite_files(
                    loaded, added=added, removed=removed, guard=guard, progress=noted
                )
            except CommitConflict:
                discard(loaded.io, [new.file for new in added])
                raise
            return self._committed(loaded, commit)

    def forget(self, table: str, key: str) -> None:
        """Remove the progress *key*, of somebody who is gone for good."""
        loaded = self.load(table)
        with typed_errors(f"forgetting progress of {table}"):
            remove_properties(loaded, [key])

    def _guard(self, table: Table, slice_: Slice, known: int) -> Guard:
        def check(head: Snapshot | None) -> None:
            removals = Removals.of(table.properties, slice_.exchange).since(known)
            taken = any(window.intersect(slice_.window) for window in removals)
            if taken or self.plan(table, head, slice_.selection, after=known):
                raise CommitConflict(
                    f"Somebody else wrote into {slice_} of {table_name(table)}.",
                    mend="Read again, compute again.",
                )

        return check

    def _carve(
        self, table: Table, slice_: Slice, head: Snapshot | None
    ) -> tuple[list[DataFileInfo], list[NewFile]]:
        """Return the files that hold rows of *slice_*, and new files with their other rows."""
        spec = _spec(table_name(table))
        outside = slice_.selection.rows(spec.time_column).not_()
        removed: list[DataFileInfo] = []
        survivors: list[NewFile] = []
        for file in self.plan(table, head, slice_.selection):
            if file.lies_within(slice_.selection):
                removed.append(file)
                continue
            rest = scan_files([file.path], spec, storage=self.storage).filter(outside).collect()
            if rest.height < file.rows:
                removed.append(file)
                survivors += [
                    NewFile(written, sequence=file.sequence)
                    for written in self._write(table, rest, file.spec_id)
                ]
        return removed, survivors

    def _write(self, table: Table, frame: pl.DataFrame, spec_id: int) -> list[DataFile]:
        if frame.is_empty():
            return []
        return write_files(table, _spec(table_name(table)), frame, spec_id=spec_id)

    def _committed(self, table: Table, commit: Commit) -> Commit:
        expire_if_many(table)
        return commit

    # What maintenance works with.

    def load(self, table: str) -> Table:
        """Return the table as it is now."""
        _spec(table)
        with typed_errors(f"loading {table}"):
            return load_table(self.catalog, table)

    def plan(
        self,
        table: Table,
        snapshot: Snapshot | None,
        selection: Selection = EVERYTHING,
        *,
        after: int = 0,
    ) -> list[DataFileInfo]:
        """Return the files of *snapshot* of a loaded table that may hold rows of *selection*.

        With *after*, a sequence number, only those that are newer.
        """
        spec = _spec(table_name(table))
        with typed_errors(f"planning {spec.name}"):
            return self._planner.live_files(
                spec, table.metadata, table.io, snapshot, selection, after
            )


def _spec(table: str) -> TableSpec:
    if table not in TABLES:
        raise UsageError(f"There is no table {table!r}.", mend=f"Known: {', '.join(TABLES)}.")
    return TABLES[table]


def _snapshot(table: Table, wanted: int | str | None) -> Snapshot | None:
    if wanted is None:
        return table.current_snapshot()
    found = (
        table.snapshot_by_id(wanted) if isinstance(wanted, int) else table.snapshot_by_name(wanted)
    )
    if found is None:
        raise UsageError(
            f"{table_name(table)} has no snapshot {wanted!r}.",
            mend=f"Tags: {', '.join(sorted(table.refs().keys() - {'main'})) or 'none yet'}.",
        )
    return found


def _removal(table: Table, slice_: Slice, removed: Collection[DataFileInfo]) -> Progress:
    """Return the note of where the commit of *table* that comes next takes rows away."""
    known = [file.times for file in removed if file.times is not None]
    window = slice_.window
    if len(known) == len(removed):
        first, last = min(times[0] for times in known), max(times[1] for times in known)
        window = window.intersect(TimeWindow(first, last + MICROSECOND)) or window

    def renew(told: str | None) -> str:
        # Each attempt refreshes the table before.
        sequence = table.metadata.next_sequence_number()
        return Removals.parse(told).noting(sequence, window).dump()

    return {removals_key(slice_.exchange): renew}


def _nothing(table: Table) -> Commit:
    head = table.current_snapshot()
    return Commit(
        snapshot_id=None,
        sequence=0 if head is None else head.sequence_number or 0,
        rows=0,
        files_added=0,
        files_removed=0,
    )
