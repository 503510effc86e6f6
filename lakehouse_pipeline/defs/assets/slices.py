"""From a run's partitions to the slices that are built, and from results to metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from lakehouse_pipeline.defs.partitions import Part, parts_of
from lakehouse_pipeline.market.windows import TimeWindow

if TYPE_CHECKING:
    from lakehouse_pipeline.build.result import BuildResult
    from lakehouse_pipeline.lake.lakehouse import Lakehouse


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
    done = 0
    for exchange, watermark in exchanges(context, lake):
        for part in (part for part in parts if part.exchange == exchange):
            yield exchange, TimeWindow.of_day(part.day), watermark
            done += 1
            if len(parts) > 1:
                context.log.info("%s done, %s of %s", part.key, done, len(parts))


def tell(context: dg.AssetExecutionContext, results: Iterable[BuildResult]) -> None:
    """Put what was built where the UI shows it: on the materialization of its partition.

    A tick after midnight may also have built the end of yesterday, which is not a partition of
    its run; that shows in the next run of yesterday.
    """
    for result in results:
        window = result.slice.window
        key = Part(result.slice.exchange, window.start.date()).key
        if key in context.partition_keys:
            context.add_asset_metadata(
                {
                    "rows": result.rows,
                    "window": f"{window.start:%Y-%m-%d %H:%M:%S} to {window.end:%H:%M:%S} UTC",
                    **({"snapshot_id": str(result.commit.snapshot_id)} if result.commit else {}),
                    **result.facts,
                },
                partition_key=key,
            )
