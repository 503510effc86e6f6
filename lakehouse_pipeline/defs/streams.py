"""The op that records one exchange, and how it tells Dagster what landed.

The worker is ``ingest.worker``; here is only its seat in Dagster. The data path never waits for
the event log: commits are counted, and a thread of its own writes them down now and then.
"""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
import logging
import threading
from collections import Counter
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

import dagster as dg
from pydantic import Field

from .assets.catalogue import STREAMED, key
from .partitions import Part
from .resources import SettingsResource

if TYPE_CHECKING:
    from lakehouse_pipeline.ingest.sink import CommitReport

log = logging.getLogger(__name__)

# An event costs 65 ms and 5 kB of SQLite; two tables every two minutes make one event a minute.
REPORT_EVERY = 120.0  # seconds


class StreamConfig(dg.Config):
    exchange: str = Field(description="One of exchanges.yaml, such as BINANCE.")


@dg.op
def record_quotes(
    context: dg.OpExecutionContext, config: StreamConfig, settings: SettingsResource
) -> None:
    """Record every configured symbol of one exchange.

    An interrupt reaches the worker as an exception; it flushes, commits and raises it again, so
    that a canceled run ends as canceled.
    """
    from lakehouse_pipeline.ingest.worker import run_worker  # noqa: PLC0415  # polars and pyiceberg

    with MaterializationReports(context, config.exchange) as reports:
        run_worker(settings.load(), config.exchange, run_id=context.run_id, on_commit=reports.add)


class MaterializationReports:
    """Counts commits, and from a thread materializes the raw assets, at first and then seldom."""

    def __init__(self, context: dg.OpExecutionContext, exchange: str) -> None:
        self._context = context
        self._exchange = exchange
        self._rows: Counter[str] = Counter()
        self._snapshots: dict[str, int | None] = {}
        self._lock = threading.Lock()
        self._landed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="materializations", daemon=True)

    def add(self, report: "CommitReport") -> None:
        """Note one commit; called from the worker's commit thread, never blocks."""
        with self._lock:
            for table, commit in report.commits.items():
                self._rows[table] += commit.rows
                self._snapshots[table] = commit.snapshot_id
        self._landed.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._landed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._landed.wait()
            self._landed.clear()
            self._write()
            self._stopped.wait(REPORT_EVERY)
        self._write()

    def _write(self) -> None:
        with self._lock:
            rows, self._rows = self._rows, Counter()
        partition = Part(self._exchange, datetime.now(UTC).date()).key
        for table in STREAMED:
            if rows[table]:
                event = dg.AssetMaterialization(
                    key(table),
                    partition=partition,
                    metadata={"rows": rows[table], "snapshot_id": str(self._snapshots[table])},
                )
                try:
                    self._context.log_event(event)
                except Exception:  # the record of a commit is not worth the commits to come
                    log.exception("%s was not materialized", table)
