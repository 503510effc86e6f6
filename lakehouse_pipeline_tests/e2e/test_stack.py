"""One deployment from start to end: real feed server, gRPC server, daemon, webserver, workers.

The tests share one stack and run in the order they stand in, as an operator's day would go.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.supervision import workers
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.stack.console import LAUNCH
from lakehouse_pipeline_tests.conftest import PATIENCE

from .conftest import EXCHANGES, MINUTES, Deployment, eventually, history_bars

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params)
    { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
BACKFILL_STATUS = """
query Status($id: String!) { partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status } ... on PythonError { message } } }
"""
CANCEL = """
mutation Cancel($id: String!) { cancelPartitionBackfill(backfillId: $id)
    { __typename ... on PythonError { message } } }
"""
RESUME = """
mutation Resume($id: String!) {
    reexecutePartitionBackfill(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE})
        { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
BACKFILL_RUNS = """
query Runs($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId status } } } }
"""
STEPS = """
query Steps($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { stepKey status } } } }
"""
VERDICT = """
query Verdict($key: AssetKeyInput!, $name: String!) {
    assetCheckExecutions(assetKey: $key, checkName: $name, limit: 20) { runId status
        evaluation { metadataEntries { label ... on IntMetadataEntry { intValue } } } } }
"""
BUILT = (
    *("market.bars_1s", "market.bars_1m", "market.gaps"),
    *("market.indicators_1m", "market.reconciliation"),
)
SERVERS = ("dagster api grpc", "dagster._daemon", "dagster_webserver")
EPOCH = datetime(1970, 1, 2, tzinfo=UTC)


def statuses(deployment: Deployment, job: str) -> list[str]:
    return [run.status for run in deployment.console.runs_since(EPOCH) if run.job == job]


def test_sensors_start_a_stream_for_each_exchange(deployment):
    eventually(deployment.all_durable, timeout=90)

    assert statuses(deployment, "stream_quotes") == ["STARTED"] * len(EXCHANGES)


def test_indicators_follow_the_first_quotes_within_two_minutes(deployment):
    eventually(deployment.all_durable, timeout=90)

    def values(lake: Lakehouse) -> bool:
        rows = lake.scan("market.indicators_1m").filter(
            pl.col("value").is_not_null(), pl.col("open_time") >= deployment.started
        )
        found = set(rows.select("exchange", "name").collect().iter_rows())
        return found >= {(exchange, name) for exchange in EXCHANGES for name in ("rsi", "macd")}

    with deployment.lake() as lake:
        eventually(lambda: values(lake), timeout=120)


def test_a_blocking_check_that_fails_stops_what_is_downstream_and_says_why(deployment, past):
    day = past[5]
    with deployment.lake() as lake:
        seconds = lake.scan("market.bars_1s", exchange="BINANCE", window=TimeWindow.of_day(day))
        wrong = history_bars(day).with_columns(low=pl.col("high") + 1)
        assert seconds.collect().is_empty()
        lake.overwrite("market.bars_1s", wrong, slice=Slice("BINANCE", TimeWindow.of_day(day)))
    # Only another symbol is rebuilt, so the wrong rows are still there when the check looks.
    limited = {"market__bars_1s": {"config": {"symbols": ["BINANCE:ETHUSDT"]}}}
    params = {
        "selector": {
            "repositoryLocationName": "lakehouse",
            "repositoryName": "__repository__",
            "jobName": "finalize_yesterday",
        },
        "runConfigData": {"ops": limited},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": f"{day}|BINANCE"}]},
    }
    launched = deployment.console.ask(LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    assert deployment.ended(run_id) == "FAILURE"

    steps = deployment.console.ask(STEPS, id=run_id)["runOrError"]["stepStats"]
    ended = {step["stepKey"]: step["status"] for step in steps}
    assert ended["market__bars_1s_ohlc_is_consistent"] == "FAILURE"
    assert not {"market__bars_1m", "market__indicators_1m"} & ended.keys()
    (alert,) = eventually(lambda: [line for line in deployment.alerts() if line["run"] == run_id])
    assert alert["partition"] == f"{day}|BINANCE"
    assert "blocking asset check failed" in alert["cause"]
    assert "ohlc_is_consistent" in alert["cause"]
    executions = deployment.console.ask(
        VERDICT, key={"path": ["market", "bars_1s"]}, name="ohlc_is_consistent"
    )["assetCheckExecutions"]
    (mine,) = [execution for execution in executions if execution["runId"] == run_id]
    facts = {entry["label"]: entry for entry in mine["evaluation"]["metadataEntries"]}
    assert mine["status"] == "FAILED"
    assert facts["offenders"]["intValue"] == wrong.height


@pytest.mark.full  # a minute and more of daemon's turns
def test_a_backfill_canceled_and_resumed_equals_a_build_by_hand(deployment, long_past):
    eventually(deployment.all_durable, timeout=90)
    streams = statuses(deployment, "stream_quotes").count("STARTED")
    backfill = launch_backfill(deployment, long_past, ["BINANCE"])
    minutes = "market.bars_1m", "open_time", long_past
    eventually(lambda: "STARTED" in str(runs_of(deployment, backfill)), timeout=90)

    deployment.console.ask(CANCEL, id=backfill)

    assert ended_backfill(deployment, backfill) == "CANCELED"
    assert [run["status"] for run in runs_of(deployment, backfill)] == ["CANCELED"]
    assert statuses(deployment, "stream_quotes").count("STARTED") == streams
    finished, kept = days_with_rows(deployment, *minutes), stored(deployment, long_past)

    resumed = deployment.console.ask(RESUME, id=backfill)["reexecutePartitionBackfill"]
    assert ended_backfill(deployment, resumed["backfillId"]) == "COMPLETED_SUCCESS"

    by_backfill = stored(deployment, long_past)
    deployment.lakehouse(
        "build", "--exchange", "BINANCE", "--from", long_past[0], "--to", long_past[-1]
    )
    by_hand = stored(deployment, long_past)
    assert by_backfill["market.bars_1m"].height == len(long_past) * MINUTES
    for table, frame in by_backfill.items():
        assert_frame_equal(frame, by_hand[table])
    of_finished = by_hand["market.bars_1m"].filter(pl.col("open_time").dt.date().is_in(finished))
    assert_frame_equal(kept["market.bars_1m"], of_finished)


def test_a_backfill_over_graphql_equals_a_build_by_hand(deployment, past):
    backfill = launch_backfill(deployment, past, EXCHANGES)

    assert ended_backfill(deployment, backfill) == "COMPLETED_SUCCESS"
    assert len(runs_of(deployment, backfill)) == len(EXCHANGES)

    by_backfill, heads = stored(deployment, past), heads_of(deployment)
    for exchange in EXCHANGES:
        deployment.lakehouse("build", "--exchange", exchange, "--from", past[0], "--to", past[-1])
    by_hand, heads_later = stored(deployment, past), heads_of(deployment)

    assert all(heads_later[table] > heads[table] for table in heads), "the command wrote nothing"
    assert by_backfill["market.bars_1m"].height == len(past) * len(EXCHANGES) * MINUTES
    for table, frame in by_backfill.items():
        assert_frame_equal(frame, by_hand[table])


def test_a_killed_worker_is_replaced_within_30_seconds(deployment):
    old = deployment.worker("OKX")
    assert old is not None

    os.kill(old.process.pid, signal.SIGKILL)

    def replaced() -> bool:
        new = deployment.worker("OKX")
        return new is not None and new.process != old.process and new.last_durable_at is not None

    eventually(replaced, timeout=30)
    assert "FAILURE" in statuses(deployment, "stream_quotes")


def test_new_bars_of_every_exchange_appear_by_schedule(deployment):
    def newest() -> dict[str, datetime]:
        with deployment.lake() as lake:
            minutes = lake.scan("market.bars_1m").group_by("exchange").max().collect()
        return dict(zip(minutes["exchange"], minutes["open_time"], strict=True))

    before = newest()

    def all_are_newer() -> bool:
        now = newest()
        return all(name in now and now[name] > before.get(name, EPOCH) for name in EXCHANGES)

    eventually(all_are_newer, timeout=240)
    # The bars are there some seconds before their run has ended: its checks come after them.
    eventually(lambda: "SUCCESS" in statuses(deployment, "build_today"), timeout=90)


def test_servers_that_die_are_started_again_and_streams_go_on(deployment):
    workers_before = {name: deployment.worker(name).process for name in EXCHANGES}
    before = {words: deployment.child(words).pid for words in SERVERS}
    for words in SERVERS:
        deployment.child(words).kill()

    def all_are_back() -> bool:
        deployment.look()
        return all(
            (found := deployment.children_with(words)) and found[0].pid != before[words]
            for words in SERVERS
        )

    eventually(all_are_back, timeout=60)
    eventually(lambda: not deployment.console.ailments(), timeout=120)

    assert {name: deployment.worker(name).process for name in EXCHANGES} == workers_before
    told = [line for line in deployment.output.splitlines() if "started again" in line]
    assert len(told) == len(SERVERS), deployment.output


def test_after_a_power_cut_streams_are_back_and_no_dead_run_is_believed(deployment):
    before = deployment.console.runs_since(EPOCH)
    deployment.kill_everything()

    deployment.start()
    eventually(deployment.all_durable, timeout=60)

    now = {run.run_id: run.status for run in deployment.console.runs_since(EPOCH)}
    dead = [run.run_id for run in before if run.status == "STARTED"]
    assert dead
    assert {now[run_id] for run_id in dead} == {"FAILURE"}


def test_two_interrupts_in_a_row_leave_nothing_unflushed_and_nobody_behind(deployment):
    console = deployment.console
    running = [run for run in console.runs_since(EPOCH) if run.status == "STARTED"]
    streams = [run.run_id for run in running if run.job == "stream_quotes"]
    assert len(streams) >= len(EXCHANGES)

    deployment.popen.send_signal(signal.SIGINT)
    deployment.popen.send_signal(signal.SIGINT)
    deployment.popen.send_signal(signal.SIGTERM)

    assert deployment.popen.wait(90 * PATIENCE) == 0, deployment.output
    assert not deployment.remains()
    assert not listens(console.url)
    assert not any(deployment.worker(exchange) for exchange in EXCHANGES)
    assert {status.pending for status in last_words(deployment)} == {0}
    assert ended_as(deployment, streams) == {"CANCELED"}


def test_a_feed_server_that_dies_ends_the_demo_with_its_reason(deployment):
    deployment.start()

    deployment.child("lakehouse feed serve").kill()

    assert deployment.popen.wait(90 * PATIENCE) == 1
    assert "The feed server was ended by signal 9" in deployment.output
    assert not deployment.remains()


@pytest.mark.full
def test_a_second_demo_goes_on_where_the_first_ended(tmp_path: Path):
    deployment = Deployment(tmp_path)
    try:
        for _ in ("first", "second"):
            deployment.start("--seconds", "30")
            assert deployment.popen.wait(360 * PATIENCE) == 0, deployment.output
    finally:
        deployment.kill_everything()


def launch_backfill(deployment: Deployment, days: list[date], exchanges: Sequence[str]) -> str:
    """Ask for every built table of *days*, as the UI does, and return the backfill's ID."""
    params = {
        "assetSelection": [{"path": table.split(".")} for table in BUILT],
        "partitionNames": [f"{day}|{exchange}" for day in days for exchange in exchanges],
    }
    launched = deployment.console.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def ended_backfill(deployment: Deployment, backfill: str) -> str:
    """Return how a backfill ended, once it has."""

    def status() -> str | None:
        answer = deployment.console.ask(BACKFILL_STATUS, id=backfill)
        now = answer["partitionBackfillOrError"]["status"]
        return now if now in ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED") else None

    return str(eventually(status, timeout=300))


def runs_of(deployment: Deployment, backfill: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = deployment.console.ask(BACKFILL_RUNS, id=backfill)["runsOrError"][
        "results"
    ]
    return found


def days_with_rows(deployment: Deployment, table: str, time: str, days: list[date]) -> list[date]:
    """Return those of BINANCE's *days* of which *table* has rows."""
    with deployment.lake() as lake:
        rows = lake.scan(table, exchange="BINANCE", window=span(days)).collect()
    return sorted(rows[time].dt.date().unique())


def span(days: list[date]) -> TimeWindow:
    return TimeWindow(TimeWindow.of_day(days[0]).start, TimeWindow.of_day(days[-1]).end)


def stored(deployment: Deployment, days: list[date]) -> dict[str, pl.DataFrame]:
    """Every built row of *days*, sorted."""
    found = {}
    with deployment.lake() as lake:
        for table in BUILT:
            rows = lake.scan(table, window=span(days)).collect()
            found[table] = rows.sort(rows.columns)
    return found


def heads_of(deployment: Deployment) -> dict[str, int]:
    with deployment.lake() as lake:
        return {table: lake.head(table) for table in BUILT}


def last_words(deployment: Deployment) -> list[WorkerStatus]:
    """The final heartbeats of the workers that ended in order."""
    found = [status for exchange in EXCHANGES for status in workers(deployment.state, exchange)]
    assert len([status for status in found if status.ended]) >= len(EXCHANGES)
    return [status for status in found if status.ended]


def ended_as(deployment: Deployment, runs: list[str]) -> set[str]:
    with dg.DagsterInstance.from_config(str(deployment.state / "dagster")) as instance:
        return {instance.get_run_by_id(run).status.value for run in runs}


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", urlsplit(url).port)) == 0
