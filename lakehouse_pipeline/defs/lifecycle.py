"""What must be done to Dagster's store while no server runs, or while they end.

Run as ``python -m lakehouse_pipeline.defs.lifecycle prepare`` before the servers start and
``… drain SECONDS`` before they stop. Add here what needs the instance and no definitions.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import psutil
import structlog
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter, __version__

from lakehouse_pipeline.telemetry import configure_logging

from .runs import UNFINISHED, end_dead_run, is_alive, live_process

log = structlog.get_logger()

WAITING = (DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED)
START_BORNE = 30.0  # seconds for a run that is starting to have started
# An interrupt that arrives inside a finalizer is swallowed by Python, and Dagster sends but one.
# To a worker that is flushing already another one is no more than a line in its log.
REPEAT_AFTER = 8.0  # seconds
UPGRADED_WITH = "upgraded-with"  # the version of Dagster that last upgraded the store
STORES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")


def prepare(instance: DagsterInstance) -> None:
    """Bring the store to this version, SQLite included, and end runs that died with the machine.

    Simultaneous first starts on an empty store fail; one process at a time does not. A run that
    Dagster believes to be running blocks its schedule for ever. Queued runs are left to run.
    """
    upgrade(instance)
    for run in unfinished(instance):
        if run.status != DagsterRunStatus.QUEUED and live_process(instance, run) is None:
            log.info("dead_run_ended", run_id=run.run_id, job=run.job_name)
            end_dead_run(instance, run)


def upgrade(instance: DagsterInstance) -> None:
    """Bring the store to this version of Dagster, unless it has been already.

    Under SQLite each kept run is a database of its own, and a look at it takes 80 ms: of a day's
    1,600 runs two minutes, in which nothing would be recorded. Elsewhere there is no such file.
    """
    home = Path(instance.root_directory)
    note = home / UPGRADED_WITH
    stands = all((home / store).exists() for store in STORES)
    if stands and note.exists() and note.read_text() == __version__:
        return
    instance.upgrade()
    note.write_text(__version__)


def drain(instance: DagsterInstance, *, patience: float) -> bool:
    """Cancel every run and return when no process of any is left: whether all ended by themselves.

    A process that outlives *patience* seconds is killed: what it held is safe in its spool.
    """
    begun = time.monotonic()
    asked: dict[str, float] = {}
    processes: dict[str, psutil.Process] = {}
    while True:
        runs = unfinished(instance)
        for run in runs:
            process = processes.get(run.run_id) or live_process(instance, run)
            if process is not None:
                processes[run.run_id] = process
            if process is not None and not is_alive(process):
                end_dead_run(instance, run)
            elif run.status == DagsterRunStatus.STARTING and not _waited(begun, START_BORNE):
                continue  # canceled before its process is ready, it would end as failed
            elif run.run_id not in asked:
                if run.status not in WAITING:  # these may still be launched behind our back
                    asked[run.run_id] = time.monotonic()
                cancel(instance, run, process)
        alive = {key: process for key, process in processes.items() if is_alive(process)}
        if not runs and not alive:
            return True
        for run_id, process in alive.items():
            if run_id in asked and _waited(asked[run_id], REPEAT_AFTER):
                asked[run_id] = time.monotonic()
                process.send_signal(signal.SIGINT)
        if _waited(begun, patience):
            give_up(instance, runs, list(alive.values()))
            return False
        time.sleep(0.2)


def _waited(since: float, seconds: float) -> bool:
    return time.monotonic() - since > seconds


def cancel(instance: DagsterInstance, run: DagsterRun, process: psutil.Process | None) -> None:
    """Interrupt *run* through its server, or by signal where that server has gone."""
    log.info("run_canceled", run_id=run.run_id, job=run.job_name, status=run.status.value)
    assert instance.run_coordinator is not None
    try:
        accepted = instance.run_coordinator.cancel_run(run.run_id)
    except Exception as error:  # noqa: BLE001  # gRPC's own errors: the server is down or restarting
        log.warning("server_unreachable", run_id=run.run_id, error=str(error))
        accepted = False
    if accepted:
        return
    if process is not None:
        process.send_signal(signal.SIGINT)
    else:
        end_dead_run(instance, run)


def give_up(instance: DagsterInstance, runs: list[DagsterRun], alive: list[psutil.Process]) -> None:
    """Kill what did not end in time, and say so in its run."""
    for process in alive:
        log.error("run_process_killed", pid=process.pid)
        process.kill()
    for run in runs:
        end_dead_run(instance, run)


def unfinished(instance: DagsterInstance) -> list[DagsterRun]:
    return list(instance.get_runs(RunsFilter(statuses=list(UNFINISHED))))


def main(arguments: list[str]) -> None:
    """Do what the first argument says, on the instance of ``DAGSTER_HOME``."""
    configure_logging()
    with DagsterInstance.get() as instance:
        match arguments:
            case ["prepare"]:
                prepare(instance)
            case ["drain", seconds]:
                if not drain(instance, patience=float(seconds)):
                    sys.exit(1)
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
