"""The supervisor against real heartbeats and real runs in an instance."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import msgspec
import pytest

from lakehouse_pipeline.defs.jobs import stream_quotes
from lakehouse_pipeline.defs.sensors import supervise
from lakehouse_pipeline.ingest.heartbeat import WorkerStatus, write_status
from lakehouse_pipeline.machine import Process

STREAM = {"exchange": "BINANCE"}


@pytest.fixture
def state(settings):
    return settings.resolved().state_dir


@pytest.fixture
def look(instance, state):
    """What the supervisor says now, or *later*."""

    def look(*, later: timedelta = timedelta(0)) -> dg.RunRequest | dg.SkipReason:
        return supervise(instance, state, "BINANCE", now=datetime.now(UTC) + later)

    return look


@pytest.fixture
def sleeper(instance) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this instance that does nothing and can be killed."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={**os.environ, "DAGSTER_HOME": instance.root_directory},
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def beat(state):
    def write(pid: int = os.getpid(), *, silent: float = 0.0, **fields: object) -> WorkerStatus:
        begun = WorkerStatus.begin("BINANCE", f"writer-{pid}", "run-1")
        told = {"process": Process.of(pid), "beat": begun.beat - silent, "symbols": 2, "quotes": 42}
        status = msgspec.structs.replace(begun, **{**told, **fields})
        write_status(state, status)
        return status

    return write


@pytest.fixture
def stream(instance):
    """A run of the stream as Dagster has it, with the process it believes in."""

    def make(status: dg.DagsterRunStatus, pid: int | None = None) -> dg.DagsterRun:
        run = instance.create_run_for_job(stream_quotes, tags=STREAM, run_config=CONFIG)
        if pid is not None:
            instance.report_engine_event(f"Started process for run (pid: {pid}).", run)
        instance.handle_run_event(run.run_id, started(run)) if status == STARTED else None
        return instance.get_run_by_id(run.run_id)

    return make


STARTED = dg.DagsterRunStatus.STARTED
CONFIG = {"ops": {"record_quotes": {"config": {"exchange": "BINANCE"}}}}


def started(run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent("PIPELINE_START", run.job_name)


def test_an_exchange_nobody_records_gets_a_run(look):
    asked = look()

    assert asked.run_config == CONFIG
    assert asked.tags == {**STREAM, "lakehouse/because": "no worker records"}
    assert asked.run_key is None


def test_a_recording_worker_is_left_alone_and_described(look, beat):
    beat()

    assert "records 2 symbols: 42 quotes" in look().skip_message


def test_a_silent_worker_is_not_taken_for_a_recording_one(look, beat):
    beat(silent=60)

    assert isinstance(look(), dg.RunRequest)


@pytest.mark.parametrize("step", [timedelta(hours=3), timedelta(hours=-3)])
def test_a_step_of_the_clock_neither_doubles_nor_cancels_a_worker(
    look, beat, stream, sleeper, step
):
    run = stream(STARTED, sleeper.pid)
    beat(sleeper.pid, run_id=run.run_id)

    assert "records 2 symbols" in look(later=step).skip_message


def test_a_killed_worker_is_replaced_at_once_and_its_run_ended(
    look, beat, stream, instance, sleeper
):
    run = stream(STARTED, sleeper.pid)
    beat(sleeper.pid)
    sleeper.kill()
    sleeper.wait()

    asked = look()

    assert isinstance(asked, dg.RunRequest)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_worker_that_keeps_dying_is_started_more_and_more_seldom(look, state):
    from lakehouse_pipeline.ingest.supervision import Failure, record_failure

    for _ in range(3):
        record_failure(state, "BINANCE", Failure(at=datetime.now(UTC), reason="no route"))

    assert "No start before" in look().skip_message
    assert "no route" in look().skip_message
    assert isinstance(look(later=timedelta(seconds=30)), dg.RunRequest)


def test_runs_that_fail_before_a_worker_can_speak_are_waited_for(look, stream, instance):
    for _ in range(2):
        run = stream(STARTED)
        instance.report_run_failed(run, "import error")

    assert "failed before it recorded" in look().skip_message
    assert isinstance(look(later=timedelta(seconds=30)), dg.RunRequest)


def test_a_failure_both_told_and_seen_counts_once(look, state, stream, instance):
    from lakehouse_pipeline.ingest.supervision import Failure, record_failure

    run = stream(STARTED)
    told = Failure(at=datetime.now(UTC), reason="no route", run_id=run.run_id)
    record_failure(state, "BINANCE", told)
    instance.report_run_failed(run, "no route")

    assert isinstance(look(), dg.RunRequest)


def test_a_run_that_is_starting_is_awaited(look, stream):
    run = stream(dg.DagsterRunStatus.NOT_STARTED)

    assert look().skip_message == f"Run {run.run_id[:8]} is not_started; no heartbeat yet."


def test_a_started_run_whose_process_lives_is_awaited(look, stream, sleeper):
    stream(STARTED, sleeper.pid)

    assert "no heartbeat yet" in look().skip_message


def test_a_worker_at_the_end_of_its_lease_is_succeeded(look, beat, stream):
    run = stream(STARTED, os.getpid())
    beat(run_id=run.run_id, lease_expired=True)

    assert isinstance(look(), dg.RunRequest)


def test_one_successor_is_enough(look, beat, stream):
    run = stream(STARTED, os.getpid())
    beat(run_id=run.run_id, lease_expired=True)
    stream(dg.DagsterRunStatus.NOT_STARTED)

    assert "no heartbeat yet" in look().skip_message


def test_while_the_stack_stops_nothing_is_started(defs, instance, state):
    state.mkdir(parents=True)
    (state / "draining").touch()

    context = dg.build_sensor_context(instance=instance)
    said = defs.resolve_sensor_def("supervise_binance")(context)

    assert said.skip_message == "The stack is stopping."


def test_each_exchange_has_a_supervisor_that_is_on(defs):
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors}
    supervisors = {name for name in sensors if name.startswith("supervise_")}

    assert supervisors == {"supervise_binance", "supervise_okx"}
    assert set(sensors.values()) == {dg.DefaultSensorStatus.RUNNING}
