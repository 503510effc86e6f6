"""Keeping tables compact: seal, compact, tag, expire, clean.

Every function is safe to kill at any instant, to run twice and to run beside writers and readers:
new files count only once committed, a commit that lost a race is planned again, and what is left
over is the cleaner's. Nothing here changes what a reader sees, row for row.

Time is an argument. When to call which, and with which instants, belongs to ``defs`` and the CLI.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import polars as pl
import structlog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakehouse_pipeline.errors import CommitConflict, TableDamaged
from lakehouse_pipeline.market.windows import DAY, HOUR

from .catalog import typed_errors
from .commit import NewFile, replace_files
from .files import discard, partition_keys, scan_files, write_files
from .lakehouse import Lakehouse
from .manifests import EPOCH, DataFileInfo
from .metadata import expire_if_many, expire_snapshots, old_snapshots, tag_snapshot
from .tables import BY_DAY, SEALED, SNAPSHOTS_KEPT, TABLES
from .unreadable import READING_FAILED, unreadable_files

log = structlog.get_logger()

TARGET_BYTES = 128 << 20  # of a compacted file; a day with more has one for each, even in size
BATCH_ROWS = 1_000_000  # rows moved by one commit, or one file's if it has more
OPEN_FILES = 16  # a partition still written to is compacted only beyond this many small files
CONFLICTS_BORNE = 20
TAG_PREFIX = "day-"

Job = Sequence[Sequence[DataFileInfo]]  # groups; the rows of each are written together
Planning = Callable[[list[DataFileInfo]], list[Job]]


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop between two commits; what is left is reported as backlog."""

    length: timedelta = timedelta(minutes=5)
    max_bytes: int = 4 << 30  # of files read


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What sealing or compacting did, and what waits. Rows are moved, never changed."""

    table: str
    commits: int = 0
    conflicts: int = 0  # lost races, planned again
    rows: int = 0
    files_removed: int = 0
    files_added: int = 0
    bytes_read: int = 0
    backlog_files: int = 0
    backlog_bytes: int = 0
    damaged: tuple[str, ...] = ()  # files left out, in the backlog too: they cannot be read


def seal(
    lake: Lakehouse,
    table: str,
    *,
    before: datetime,
    consumed: Mapping[str, int] | None = None,
    budget: Budget | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Rewritten:
    """Move the rows of closed hot files into (symbol, day) files, newest hours first.

    Args:
        lake: the lake.
        table: one with a hot spec; nothing is done for others.
        before: hours that end at or before it are closed.
        consumed: the sequence number up to which every consumer has read an exchange; files
            beyond it stay hot, exchanges not named are not held back. Sealed files keep the
            newest sequence number of the files their rows come from, so that nobody reads them
            again.
        budget: when to stop.
        clock: monotonic seconds.

    Raises:
        CommitConflict: if it lost two dozen races in one call.
        TableDamaged: if written rows differ from those read, or the table's metadata is damaged;
            nothing was committed. Damaged data files are left out instead, and named.
    """
    limits = consumed or {}

    def plan(files: list[DataFileInfo]) -> list[Job]:
        closed = [
            file
            for file in files
            if file.is_hot
            and EPOCH + (file.partition[1] + 1) * HOUR <= before
            and file.sequence <= limits.get(file.partition[0], file.sequence)
        ]
        closed.sort(key=lambda file: (-file.partition[1], file.partition[0], file.path))
        by_exchange: dict[str, list[DataFileInfo]] = defaultdict(list)
        for file in closed:
            by_exchange[file.partition[0]].append(file)
        return list(_jobs([batch for each in by_exchange.values() for batch in _batches(each)]))

    return _rewrite_all(lake, table, plan, budget or Budget(), clock)


def compact(
    lake: Lakehouse,
    table: str,
    *,
    before: datetime,
    budget: Budget | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Rewritten:
    """Merge the small files of each sealed partition, newest days first.

    A partition whose day ends at or before *before* ends with one file, as does one without a day,
    which is small; one that is still written to is merged once it has more than ``OPEN_FILES``.
    Done twice, the second finds nothing.

    Raises:
        CommitConflict, TableDamaged: as ``seal``.
    """
    dated = TABLES[table].sealed[-1][1] == BY_DAY

    def fewest(partition: tuple[object, ...]) -> int:
        day = partition[-1]
        still_open = dated and isinstance(day, int) and EPOCH + (day + 1) * DAY > before
        return OPEN_FILES + 1 if still_open else 2

    def plan(files: list[DataFileInfo]) -> list[Job]:
        partitions: dict[tuple[object, ...], list[DataFileInfo]] = defaultdict(list)
        for file in files:
            if not file.is_hot and file.bytes < TARGET_BYTES:
                partitions[file.partition].append(file)
        groups = [
            group
            for partition, small in partitions.items()
            if len(small) >= fewest(partition)
            for group in _groups(small)
        ]
        groups.sort(key=lambda group: (str(group[0].partition[-1]), group[0].path), reverse=True)
        return list(_jobs(groups))

    return _rewrite_all(lake, table, plan, budget or Budget(), clock)


def _batches(files: Sequence[DataFileInfo]) -> Iterator[list[DataFileInfo]]:
    """Cut *files* into runs of at most ``BATCH_ROWS`` rows, or one file."""
    batch: list[DataFileInfo] = []
    for file in files:
        if batch and sum(each.rows for each in batch) + file.rows > BATCH_ROWS:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _groups(files: Sequence[DataFileInfo]) -> list[list[DataFileInfo]]:
    """Return which of *files* are written together: what ends with the fewest files.

    Small ones first, none beyond the target. Where that leaves more than one for each
    ``TARGET_BYTES`` (three of 70 MB), all are one group, whose rows are then cut evenly.
    """
    groups: list[list[DataFileInfo]] = []
    size = 0
    for file in sorted(files, key=lambda each: (each.bytes, each.path)):
        if not groups or size + file.bytes > TARGET_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.bytes
    if len(groups) > _fewest(files):
        return [list(files)]
    return [group for group in groups if len(group) > 1]


def _fewest(files: Sequence[DataFileInfo]) -> int:
    """Return how many files the rows of *files* need."""
    return -(-sum(file.bytes for file in files) // TARGET_BYTES)


def _jobs(groups: Sequence[Sequence[DataFileInfo]]) -> Iterator[Job]:
    """Cut *groups* into commits of about ``BATCH_ROWS`` rows."""
    job: list[Sequence[DataFileInfo]] = []
    rows = 0
    for group in groups:
        job.append(group)
        rows += sum(file.rows for file in group)
        if rows >= BATCH_ROWS:
            yield job
            job, rows = [], 0
    if job:
        yield job


def _rewrite_all(
    lake: Lakehouse, table: str, plan: Planning, budget: Budget, clock: Callable[[], float]
) -> Rewritten:
    """Do the first job of *plan*, plan again, until nothing is left or the budget is spent."""
    deadline = clock() + budget.length.total_seconds()
    result = Rewritten(table)
    while True:
        live = lake.live_files(table)
        left_out = [file for file in live if file.path in result.damaged]
        jobs = plan([file for file in live if file.path not in result.damaged])
        spent = clock() >= deadline or result.bytes_read >= budget.max_bytes
        if not jobs or spent:
            waiting = [*left_out, *(file for job in jobs for group in job for file in group)]
            return replace(
                result,
                backlog_files=len(waiting),
                backlog_bytes=sum(file.bytes for file in waiting),
            )
        try:
            result = _rewrite(lake, table, jobs[0], result)
        except CommitConflict:
            result = replace(result, conflicts=result.conflicts + 1)
            log.info("rewrite_lost_race", table=table, conflicts=result.conflicts)
            if result.conflicts > CONFLICTS_BORNE:
                raise
        except _Unreadable as error:
            found = tuple(file.path for file in error.files)
            result = replace(result, damaged=(*result.damaged, *found))
            log.warning("damaged_files_left_out", table=table, files=found)


class _Unreadable(Exception):
    """Files of a job are damaged: it is planned again without them."""

    def __init__(self, files: Sequence[DataFileInfo]) -> None:
        super().__init__()
        self.files = files


def _rewrite(lake: Lakehouse, table: str, job: Job, result: Rewritten) -> Rewritten:
    """Write the rows of each group anew and swap the files in one commit."""
    loaded, spec = lake.load(table), TABLES[table]
    added: list[NewFile] = []
    with typed_errors(f"rewriting files of {table}"):
        try:
            for group in job:
                rows = _read(lake, table, group)
                limit = -(-rows.height // _fewest(group))
                written = write_files(loaded, spec, rows, spec_id=SEALED, max_rows=limit)
                added += _numbered(loaded, rows, group, written)
                _check(lake, table, rows, written)
            removed = list(itertools.chain.from_iterable(job))
            commit = replace_files(loaded, added=added, removed=removed)
        except (CommitConflict, TableDamaged, _Unreadable):
            discard(loaded.io, [new.file for new in added])
            raise
        expire_if_many(loaded)
    return replace(
        result,
        commits=result.commits + 1,
        rows=result.rows + commit.rows,
        files_removed=result.files_removed + commit.files_removed,
        files_added=result.files_added + commit.files_added,
        bytes_read=result.bytes_read + sum(file.bytes for file in removed),
    )


def _numbered(
    table: Table, rows: pl.DataFrame, group: Sequence[DataFileInfo], written: Sequence[DataFile]
) -> Iterator[NewFile]:
    """Give each of *written* the newest sequence number of the files that its rows come from.

    Not that of the whole *group*, whose *rows* are in its order: a day would look newer than what
    was built from it whenever an hour with some of its rows is sealed with a later one.
    """
    keys = partition_keys(table, SEALED)
    numbers = pl.concat([pl.repeat(file.sequence, file.rows, eager=True) for file in group])
    sequenced = rows.select(*keys, numbers.alias("newest"))
    newest = sequenced.group_by(pl.exclude("newest")).max()
    by_partition = {tuple(values): number for *values, number in newest.rows()}
    for file in written:
        values = tuple(file.partition[position] for position in range(len(file.partition)))
        yield NewFile(file, sequence=by_partition[values])


def _read(lake: Lakehouse, table: str, files: Sequence[DataFileInfo]) -> pl.DataFrame:
    paths = [file.path for file in files]
    try:
        return scan_files(paths, TABLES[table], storage=lake.storage).collect()
    except READING_FAILED as error:
        if damaged := unreadable_files(lake, table, files):
            raise _Unreadable(damaged) from error
        raise


def _check(lake: Lakehouse, table: str, rows: pl.DataFrame, written: Sequence[DataFile]) -> None:
    paths = [file.file_path for file in written]
    again = scan_files(paths, TABLES[table], storage=lake.storage).collect()
    if fingerprint(again) != fingerprint(rows):
        raise TableDamaged(
            f"Rows of {table} read back differently from how they were written.",
            mend="Nothing was changed. Check the disk and the memory of this machine.",
        )


def fingerprint(rows: pl.DataFrame) -> tuple[int, int]:
    """Return the count of *rows* and a hash of their contents that no order changes."""
    return rows.height, int(rows.hash_rows().sum())


def day_tag(day: date) -> str:
    """Return the name of a day's tag."""
    return f"{TAG_PREFIX}{day.isoformat()}"


def tag_day(lake: Lakehouse, table: str, day: date, *, snapshot_id: int | None = None) -> None:
    """Tag a snapshot as *day* and drop all but the newest tags the table keeps.

    Args:
        lake: the lake.
        table: one that keeps tags; nothing is done for others.
        day: time travel is promised to it: ``scan(table, snapshot=day_tag(day))``.
        snapshot_id: takes the tag even from another. By default the head, unless there is a tag.

    Raises:
        CommitConflict: if the snapshot has been expired.
    """
    keep, name = TABLES[table].tagged_days, day_tag(day)
    with typed_errors(f"tagging {table}"):
        loaded = lake.load(table)
        head = loaded.current_snapshot()
        if not keep or head is None:
            return
        tagged = loaded.refs().get(name)
        chosen = snapshot_id or (tagged.snapshot_id if tagged else head.snapshot_id)
        tag_snapshot(loaded, name, chosen, prefix=TAG_PREFIX, keep=keep)


def expirable(lake: Lakehouse, table: str, *, keep: int = SNAPSHOTS_KEPT) -> int:
    """Return how many snapshots ``expire`` would forget now."""
    return len(old_snapshots(lake.load(table), keep=keep))


def expire(lake: Lakehouse, table: str, *, keep: int = SNAPSHOTS_KEPT) -> int:
    """Forget snapshots beyond the newest *keep*, tags excepted; return how many."""
    with typed_errors(f"expiring snapshots of {table}"):
        return expire_snapshots(lake.load(table), keep=keep)
