"""One deployment from start to end: real feed server, gRPC server, daemon, webserver, workers.

The tests share one stack and run in the order they stand in, as an operator's day would go.
"""

from __future__ import annotations

import os
import signal
import socket
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import dagster as dg
import pytest

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.supervision import workers

from .conftest import EXCHANGES, Deployment, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params)
    { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
"""
BACKFILL_STATUS = """
query Status($id: String!) { partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status } ... on PythonError { message } } }
"""
EPOCH = datetime(1970, 1, 2, tzinfo=UTC)


def statuses(deployment: Deployment, job: str) -> list[str]:
    return [run.status for run in deployment.console.runs_since(EPOCH) if run.job == job]


def test_sensors_start_a_stream_for_each_exchange(deployment):
    eventually(deployment.all_durable, timeout=90)

    assert statuses(deployment, "stream_quotes") == ["STARTED"] * len(EXCHANGES)


def test_a_backfill_over_graphql_completes(deployment):
    with deployment.lake() as lake:
        eventually(lambda: lake.head("raw.coverage"), timeout=30)
    today = datetime.now(UTC).date()
    params = {
        "assetSelection": [{"path": ["market", name]} for name in ("bars_1s", "bars_1m", "gaps")],
        "partitionNames": [
            f"{today - timedelta(days=back)}|{exchange}"
            for back in (1, 0)
            for exchange in EXCHANGES
        ],
    }

    launched = deployment.console.ask(BACKFILL, params=params)["launchPartitionBackfill"]

    def ended() -> str | None:
        answer = deployment.console.ask(BACKFILL_STATUS, id=launched["backfillId"])
        status = answer["partitionBackfillOrError"]["status"]
        return None if status in ("REQUESTED", "COMPLETED") else status

    assert eventually(ended, timeout=180) == "COMPLETED_SUCCESS"


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
    streams = [run.run_id for run in console.runs_since(EPOCH) if run.status == "STARTED"]
    assert len(streams) >= len(EXCHANGES)

    deployment.popen.send_signal(signal.SIGINT)
    deployment.popen.send_signal(signal.SIGINT)
    deployment.popen.send_signal(signal.SIGTERM)

    assert deployment.popen.wait(90) == 0, deployment.output
    assert not deployment.remains()
    assert not listens(console.url)
    assert not any(deployment.worker(exchange) for exchange in EXCHANGES)
    assert {status.pending for status in last_words(deployment)} == {0}
    assert ended_as(deployment, streams) == {"CANCELED"}


def test_a_feed_server_that_dies_ends_the_demo_with_its_reason(deployment):
    deployment.start()

    deployment.child("lakehouse feed serve").kill()

    assert deployment.popen.wait(90) == 1
    assert "The feed server was ended by signal 9" in deployment.output
    assert not deployment.remains()


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
