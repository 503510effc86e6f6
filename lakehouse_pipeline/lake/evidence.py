"""Evidence that maintenance keeps its promises, looked up in the tables, not in what it says.

Each snapshot names the files it took away and the files it put there, so a rewrite can be judged
afterwards for as long as its snapshot and the one before it are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from pyiceberg.table.snapshots import Operation

from lakehouse_pipeline.market.windows import DAY, HOUR

from .files import scan_files
from .lakehouse import Lakehouse
from .maintenance import OPEN_FILES, TARGET_BYTES, fingerprint
from .manifests import EPOCH, DataFileInfo
from .tables import BY_DAY, TABLES


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One seal or compaction: the files it took away and those it put in their place."""

    snapshot_id: int
    removed: tuple[DataFileInfo, ...]
    added: tuple[DataFileInfo, ...]


def rewrites(lake: Lakehouse, table: str, *, max_bytes: int) -> Iterator[Rewrite]:
    """Yield the newest rewrites that can still be judged, until they hold *max_bytes*.

    The newest is always among them, however large: it was one commit, of bounded size.
    """
    loaded = lake.load(table)
    newest = sorted(loaded.metadata.snapshots, key=lambda each: -(each.sequence_number or 0))
    seen = 0
    for snapshot in newest:
        parent = snapshot.parent_snapshot_id and loaded.snapshot_by_id(snapshot.parent_snapshot_id)
        summary = snapshot.summary
        if not parent or summary is None or summary.operation is not Operation.REPLACE:
            continue
        before = {file.path: file for file in lake.plan(loaded, parent)}
        after = {file.path: file for file in lake.plan(loaded, snapshot)}
        removed = tuple(file for path, file in before.items() if path not in after)
        added = tuple(file for path, file in after.items() if path not in before)
        seen += sum(file.bytes for file in removed)
        yield Rewrite(snapshot.snapshot_id, removed, added)
        if seen >= max_bytes:
            return


def rows_are_identical(lake: Lakehouse, table: str, rewrite: Rewrite) -> bool:
    """Tell whether both sides of *rewrite* hold the same rows, by count and content."""

    def mark(files: tuple[DataFileInfo, ...]) -> tuple[int, int]:
        paths = [file.path for file in files]
        return fingerprint(scan_files(paths, TABLES[table], storage=lake.storage).collect())

    return mark(rewrite.removed) == mark(rewrite.added)


def partitions(lake: Lakehouse, table: str, *, before: datetime) -> pl.DataFrame:
    """Return one row a partition: spec, partition, files, bytes, and how many files are allowed.

    Closed at *before*, a day may have one file per ``TARGET_BYTES`` and an hour none; open ones may
    have ``OPEN_FILES``, hours as many as there were commits.
    """
    dated = TABLES[table].sealed[-1][1] == BY_DAY
    rows = [
        ("/".join(map(str, file.partition)), file.is_hot, _closed(file, dated, before), file.bytes)
        for file in lake.live_files(table)
    ]
    files = pl.DataFrame(
        rows,
        schema={"partition": pl.String, "hot": pl.Boolean, "closed": pl.Boolean, "bytes": pl.Int64},
        orient="row",
    )
    whole = (pl.col("bytes") // TARGET_BYTES).cast(pl.Int64) + 1
    allowed = (
        pl.when(pl.col("hot"))
        .then(pl.when("closed").then(0).otherwise(None))
        .otherwise(pl.when("closed").then(whole).otherwise(whole + OPEN_FILES))
    )
    return (
        files.group_by("partition", "hot", "closed")
        .agg(pl.len().cast(pl.Int64).alias("files"), pl.col("bytes").sum())
        .with_columns(allowed.alias("allowed"))
        .sort("hot", "partition")
    )


def _closed(file: DataFileInfo, dated: bool, before: datetime) -> bool:  # noqa: FBT001  # of the table
    last = file.partition[-1]
    if file.is_hot:
        return bool(EPOCH + (last + 1) * HOUR <= before)
    return dated and bool(EPOCH + (last + 1) * DAY <= before)
