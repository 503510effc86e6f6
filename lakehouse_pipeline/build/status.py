"""How far each exchange is: what its worker says, what is recorded, what is built."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import polars as pl

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.supervision import is_alive, workers
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.schemas import UTC_TIME

from .bars import BARS_1M, current_watermark
from .gaps import GAPS
from .kinds import QUOTES

SCHEMA = pl.Schema(
    {
        "exchange": pl.String(),
        "worker": pl.String(),
        "symbols": pl.Int64(),
        "quotes": pl.Int64(),
        "pending": pl.Int64(),
        "watermark": UTC_TIME,
        "bars_1m": pl.Int64(),
        "newest_bar": UTC_TIME,
        "gaps": pl.Int64(),
    }
)


def describe_exchanges(
    lake: Lakehouse, state_dir: Path, exchanges: Iterable[str], *, now: datetime
) -> pl.DataFrame:
    """Return one row an exchange.

    ``quotes`` are committed rows, ``pending`` those that are durable in the worker's spool and not
    committed yet; ``watermark`` is the instant up to which event time is complete.
    """
    rows = []
    for exchange in exchanges:
        living = [status for status in workers(state_dir, exchange) if is_alive(status, now)]
        bars = lake.scan(BARS_1M, exchange=exchange, columns=["open_time"])
        counted = bars.select(pl.len(), pl.col("open_time").max()).collect()
        rows.append(
            {
                "exchange": exchange,
                "worker": _say(living),
                "symbols": max((status.symbols for status in living), default=None),
                "quotes": _count(lake, QUOTES, exchange),
                "pending": sum(status.pending for status in living) if living else None,
                "watermark": current_watermark(lake, exchange),
                "bars_1m": counted["len"].item(),
                "newest_bar": counted["open_time"].item(),
                "gaps": _count(lake, GAPS, exchange),
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)


def _say(living: list[WorkerStatus]) -> str:
    if not living:
        return "none"
    errors = [error for status in living for error in (status.feed_error, status.lake_error)]
    state = "recording" if any(status.connected for status in living) else "connecting"
    said = next((error for error in errors if error), state)
    studies = [trouble for status in living for trouble in status.study_troubles]
    return "; ".join(dict.fromkeys([said, *studies]))


def _count(lake: Lakehouse, table: str, exchange: str) -> int:
    count = lake.scan(table, exchange=exchange, columns=["exchange"]).select(pl.len()).collect()
    return int(count.item())
