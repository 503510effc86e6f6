"""What a build says it did, and the one way it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl
import stamina

from lakehouse_pipeline.errors import CommitConflict
from lakehouse_pipeline.lake.commit import Commit
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.progress import Progress
from lakehouse_pipeline.lake.slices import Slice

Fact = int | float | str


@dataclass(frozen=True, slots=True)
class BuildResult:
    """One table's slice after a build; ``commit`` is None where nothing had to change."""

    table: str
    slice: Slice
    rows: int
    commit: Commit | None
    facts: Mapping[str, Fact] = field(default_factory=dict)


def write_slice(
    lake: Lakehouse,
    table: str,
    part: Slice,
    compute: Callable[[], pl.DataFrame],
    *,
    progress: Progress | None = None,
) -> tuple[pl.DataFrame, BuildResult]:
    """Replace the rows of *part* by what *compute* reads and returns.

    A slice that somebody else changed meanwhile is read and computed again, so the table ends as a
    function of what is upstream now.

    Raises:
        CommitConflict: after five lost races.
    """
    for attempt in stamina.retry_context(on=CommitConflict, attempts=5, timeout=None):
        with attempt:
            since = lake.head(table)
            frame = compute()
            commit = lake.overwrite(table, frame, slice=part, progress=progress, since=since)
    return frame, BuildResult(table, part, frame.height, commit)
