"""Dagster keeps runs and their events for ever; ticks are 1,440 a day and 0.3 MB each.

What the clock and the sensors started is deleted once it is a day old, unless it is the last word
on a partition: what says that a finished day was built stays for good. A stream's last word on a
finished day, among thousands of events, is said once more without a run, so that it can go as well.
Runs that a person started are left to that person. Add here what else may be forgotten, and when.
"""

# No postponed annotations here: Dagster reads the class of an op's context, not its name.
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from . import jobs
from .assets.catalogue import STREAMED, key
from .partitions import Part
from .resources import LakehouseResource

KEPT = timedelta(days=1)
FAILURES_KEPT = timedelta(days=14)
# A run older than this that is still here is a record, and stays one.
LOOKED_BACK = timedelta(days=30)
PAGE = 200  # runs or events looked at at a time
FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
FORGET_RUNS = "forget_runs"
STREAMS = "stream_quotes"
OURS = {
    *(STREAMS, FORGET_RUNS, jobs.BUILD_TODAY, jobs.REPORT_GAPS, jobs.REPAIR),
    *(jobs.FINALIZE_YESTERDAY, jobs.CATCH_UP, jobs.SEAL_AND_COMPACT, jobs.CLEAN_FOLDERS),
}
SQLITES = ("wal", "shm", "journal")  # what SQLite keeps beside a file

LastWords = Mapping[tuple[dg.AssetKey, str], str]  # run ID by asset and partition


def forgettable(instance: dg.DagsterInstance, *, now: datetime) -> Iterator[dg.DagsterRun]:
    """Yield the finished runs that are old and the last word on no partition."""
    last = set(last_words(instance, since=now - LOOKED_BACK).values())
    old = dg.RunsFilter(
        statuses=FINISHED, created_after=now - LOOKED_BACK, created_before=now - KEPT
    )
    failures = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        created_after=now - FAILURES_KEPT,
        created_before=now - KEPT,
    )
    shown = {run.run_id for run in _runs(instance, failures) if run.job_name != STREAMS}
    for run in _runs(instance, old):
        if run.job_name in OURS and run.run_id not in last | shown:
            yield run


def last_words(instance: dg.DagsterInstance, *, since: datetime) -> LastWords:
    """Return which run materialized each partition last, as far as that was after *since*."""
    said: dict[tuple[dg.AssetKey, str], str] = {}
    for asset in instance.get_asset_keys():
        newest = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        ids = sorted(newest.values(), reverse=True)
        for start in range(0, len(ids), PAGE):
            wanted = dg.AssetRecordsFilter(asset_key=asset, storage_ids=ids[start : start + PAGE])
            records = instance.fetch_materializations(wanted, limit=PAGE).records
            for record in records:
                said[asset, record.partition_key or ""] = record.run_id
            if any(record.timestamp < since.timestamp() for record in records):
                break
    return said


def forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run with all that Dagster itself leaves behind of it.

    That is the verdicts of its checks, and under SQLite the file that held its events.
    """
    # SQLAlchemy is slow to import. Private names: no public call deletes either of the two.
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable  # noqa: PLC0415
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage  # noqa: PLC0415
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage  # noqa: PLC0415

    instance.delete_run(run_id)
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        with storage.index_connection() as connection:
            table = AssetCheckExecutionsTable
            connection.execute(table.delete().where(table.c.run_id == run_id))
    if isinstance(storage, SqliteEventLogStorage):
        events = Path(storage.path_for_shard(run_id))
        for file in (events, *(events.with_name(f"{events.name}-{part}") for part in SQLITES)):
            file.unlink(missing_ok=True)


def repeat_streams(
    instance: dg.DagsterInstance, lakehouse: LakehouseResource, *, now: datetime
) -> int:
    """Say again, without a run, what old streams said last of days that are over; return how often.

    Without it the streamed tables would look unrecorded for days that were.
    """
    import polars as pl  # noqa: PLC0415  # slow to import

    from lakehouse_pipeline.market.windows import TimeWindow  # noqa: PLC0415

    streamed = {key(table): table for table in STREAMED}
    said = {
        (asset, partition): run_id
        for (asset, partition), run_id in last_words(instance, since=now - LOOKED_BACK).items()
        if asset in streamed and partition and Part.of(partition).day < (now - KEPT).date()
    }
    old = {
        run.run_id
        for run in _runs(
            instance,
            dg.RunsFilter(job_name=STREAMS, statuses=FINISHED, created_before=now - KEPT),
        )
    }
    repeated = [place for place, run_id in said.items() if run_id in old]
    if not repeated:
        return 0
    with lakehouse.open() as lake:
        for asset, partition in repeated:
            part = Part.of(partition)
            window = TimeWindow.of_day(part.day)
            rows = lake.scan(streamed[asset], exchange=part.exchange, window=window)
            count = rows.select(pl.len()).collect().item()
            instance.report_runless_asset_event(
                dg.AssetMaterialization(asset, partition=part.key, metadata={"rows": count})
            )
    return len(repeated)


def _runs(instance: dg.DagsterInstance, wanted: dg.RunsFilter) -> Iterator[dg.DagsterRun]:
    cursor = None
    while page := instance.get_runs(wanted, cursor=cursor, limit=PAGE):
        yield from page
        cursor = page[-1].run_id


@dg.op
def delete_runs(context: dg.OpExecutionContext, lakehouse: LakehouseResource) -> None:
    """Delete the runs and events that say nothing a later one does not say."""
    now = datetime.now(UTC)
    repeated = repeat_streams(context.instance, lakehouse, now=now)
    chosen = [run.run_id for run in forgettable(context.instance, now=now)]
    for run_id in chosen:
        forget(context.instance, run_id)
    context.log.info("deleted %s runs; repeated %s last words of streams", len(chosen), repeated)


@dg.job(
    name=FORGET_RUNS,
    executor_def=dg.in_process_executor,
    tags={jobs.CLASS: "batch", jobs.MAX_RUNTIME: "3600"},
)
def forget_runs() -> None:
    """Keep Dagster's store flat: ticks are 1,440 a day."""
    delete_runs()
