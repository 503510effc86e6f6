"""Before the servers start and while they end: no run that is dead is believed alive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from sqlalchemy.exc import DatabaseError

from lakehouse_pipeline.defs.jobs import stream_quotes
from lakehouse_pipeline.defs.lifecycle import STORES, UPGRADED_WITH, drain, prepare

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("lakehouse"), "__repository__"),
    "stream_quotes",
)
CONFIG = {"ops": {"record_quotes": {"config": {"exchange": "BINANCE"}}}}
Status = dg.DagsterRunStatus


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def environment(instance) -> dict[str, str]:
    """What a run's process gets from the server that starts it."""
    return {**os.environ, "DAGSTER_HOME": instance.root_directory}


@pytest.fixture
def process(environment) -> Iterator[subprocess.Popen[bytes]]:
    """A run's process: it ends when it is interrupted."""
    script = "import signal, sys; signal.signal(signal.SIGINT, lambda *_: sys.exit()); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, env=environment
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def run(instance):
    def make(status: Status, pid: int | None = None) -> str:
        run = instance.create_run_for_job(
            stream_quotes, status=status, run_config=CONFIG, remote_job_origin=ORIGIN
        )
        if pid is not None:
            instance.report_engine_event(f"Started process for run (pid: {pid}).", run)
        return run.run_id

    return make


@pytest.fixture
def status_of(instance):
    return lambda run_id: instance.get_run_by_id(run_id).status


def test_runs_of_a_crashed_machine_are_ended_before_the_start(instance, run, status_of, process):
    process.kill()
    process.wait()
    runs = [run(Status.STARTED, process.pid), run(Status.CANCELING, process.pid)]

    prepare(instance)

    assert list(map(status_of, runs)) == [Status.FAILURE, Status.CANCELED]


def test_a_store_is_upgraded_once_for_each_version_of_dagster(instance, tmp_path):
    prepare(instance)
    # Each run has a database of its own; of a thousand each look would take minutes.
    (tmp_path / "history" / "runs" / "run.db").write_bytes(b"whoever looks at it fails" * 99)

    prepare(instance)

    (tmp_path / UPGRADED_WITH).write_text("1.0.0")
    with pytest.raises(DatabaseError):
        prepare(instance)


def test_a_store_that_was_lost_is_made_again(tmp_path):
    for _ in range(2):
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            prepare(instance)
            assert all((tmp_path / store).exists() for store in STORES)
        (tmp_path / STORES[0]).unlink()


def test_a_run_whose_process_lives_goes_on_under_the_new_stack(instance, run, status_of, process):
    alive = run(Status.STARTED, process.pid)

    prepare(instance)

    assert status_of(alive) == Status.STARTED


def test_a_process_number_used_again_does_not_keep_a_run_alive(instance, run, status_of):
    dead = run(Status.STARTED, os.getpid())

    prepare(instance)

    assert status_of(dead) == Status.FAILURE


def test_a_step_of_the_clock_does_not_end_a_living_run(
    instance, run, status_of, process, monkeypatch
):
    alive = run(Status.STARTED, process.pid)
    monkeypatch.setattr("psutil.Process.create_time", lambda _: 4e9)

    prepare(instance)

    assert status_of(alive) == Status.STARTED


def test_queued_runs_are_left_to_run(instance, run, status_of):
    queued = run(Status.QUEUED)

    prepare(instance)

    assert status_of(queued) == Status.QUEUED


def test_draining_cancels_what_waits_and_what_never_started(instance, run, status_of):
    runs = [run(Status.QUEUED), run(Status.NOT_STARTED)]

    drain(instance, patience=10)

    assert list(map(status_of, runs)) == [Status.CANCELED] * 2


def test_a_run_whose_server_has_gone_is_interrupted_by_signal(instance, run, status_of, process):
    alive = run(Status.STARTED, process.pid)

    drain(instance, patience=10)

    assert process.wait() == 0
    assert status_of(alive) == Status.CANCELED


def test_an_interrupt_that_was_swallowed_is_repeated(
    instance, run, status_of, environment, monkeypatch
):
    monkeypatch.setattr("lakehouse_pipeline.defs.lifecycle.REPEAT_AFTER", 0)
    heard = "n = []; signal.signal(signal.SIGINT, lambda *_: n.append(1) or n[1:] and sys.exit())"
    script = f"import signal, sys; {heard}; print(flush=True)\nwhile True: signal.pause()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline()
        alive = run(Status.STARTED, process.pid)

        drained = drain(instance, patience=10)

        assert drained
        assert process.wait() == 0
    assert status_of(alive) == Status.CANCELED


def test_a_process_that_does_not_end_is_killed_when_patience_is(run, status_of, environment):
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", deaf],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout.readline()
        alive = run(Status.STARTED, process.pid)

        command = [sys.executable, "-m", "lakehouse_pipeline.defs.lifecycle", "drain", "0"]
        drained = subprocess.run(command, env=environment, check=False)

        assert drained.returncode == 1
        assert process.wait() == -9
    assert status_of(alive) == Status.CANCELED
