"""From a run's partitions to the slices that are built, and from results to metadata."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import dagster as dg

from lakehouse_pipeline.defs.partitions import Part, parts_of
from lakehouse_pipeline.market.windows import TimeWindow

if TYPE_CHECKING:
    from lakehouse_pipeline.build.result import BuildResult
    from lakehouse_pipeline.lake.lakehouse import Lakehouse

SECOND = "%Y-%m-%d %H:%M:%S"
# What each running body has told, for its own progress; gone with the body's context.
ROWS: WeakKeyDictionary[dg.AssetExecutionContext, int] = WeakKeyDictionary()


def exchanges(context: dg.AssetExecutionContext, lake: Lakehouse) -> Iterator[tuple[str, datetime]]:
    """Yield each exchange of the run that was ever recorded, and its watermark."""
    from lakehouse_pipeline.build.bars import current_watermark  # noqa: PLC0415  # polars and pyiceberg

    for exchange in sorted({part.exchange for part in parts_of(context)}):
        watermark = current_watermark(lake, exchange)
        if watermark is None:
            context.log.warning("%s was never recorded: nothing is built", exchange)
        else:
            yield exchange, watermark


def days(
    context: dg.AssetExecutionContext, lake: Lakehouse
) -> Iterator[tuple[str, TimeWindow, datetime]]:
    """Yield the run's partitions one by one: exchange, UTC day and watermark."""
    parts = list(parts_of(context))
    done, began = 0, time.monotonic()
    for exchange, watermark in exchanges(context, lake):
        for part in (part for part in parts if part.exchange == exchange):
            yield exchange, TimeWindow.of_day(part.day), watermark
            done += 1
            if len(parts) > 1:
                taken = time.monotonic() - began
                said = progress(done, len(parts), taken, rows=ROWS.get(context, 0))
                context.log.info("%s done: %s", part.key, said)


def progress(done: int, days: int, taken: float, *, rows: int) -> str:
    """Return how far a run is after *taken* seconds, and how long the rest will take."""
    left = taken / done * (days - done)
    rate = rows / taken if taken else 0.0
    return f"{done} of {days} days, {rate:,.0f} rows/s, {left:,.0f} s left"


def tell(context: dg.AssetExecutionContext, results: Iterable[BuildResult]) -> None:
    """Put what was built where the UI shows it: on the materialization of its partition.

    A tick after midnight may also have built the end of yesterday, which is not a partition of
    its run; that shows in the next run of yesterday.
    """
    for result in results:
        ROWS[context] = ROWS.get(context, 0) + result.rows
        window = result.slice.window
        key = Part(result.slice.exchange, window.start.date()).key
        if key in context.partition_keys:
            context.add_asset_metadata(
                {
                    "rows": result.rows,
                    **_whole(result),
                    "window": f"{window.start:{SECOND}} to {window.end:{SECOND}} UTC",
                    **({"snapshot_id": str(result.commit.snapshot_id)} if result.commit else {}),
                    **result.facts,
                },
                partition_key=key,
            )


def show(
    context: dg.AssetExecutionContext, exchange: str, day: TimeWindow, name: str, said: str | None
) -> None:
    """Put a drawing or a table, as markdown, on the materialization of its partition."""
    if said is not None:
        partition = Part(exchange, day.start.date()).key
        context.add_asset_metadata({name: dg.MetadataValue.md(said)}, partition_key=partition)


def _whole(result: BuildResult) -> dict[str, int]:
    """Where all of a partition was built, its rows under the name that the UI knows."""
    window = result.slice.window
    midnight = window.start == TimeWindow.of_day(window.start.date()).start
    everything = midnight and result.slice.symbols is None
    return {"dagster/partition_row_count": result.rows} if everything else {}
