"""Does a run's process live? What Dagster says is a belief; the process is the fact.

The default launcher writes a run's process number into its events and never looks again. Add here
what tells a live run from a dead one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus

if TYPE_CHECKING:
    import psutil

UNFINISHED = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)
STARTED_PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")


def live_process(instance: DagsterInstance, run: DagsterRun) -> psutil.Process | None:
    """Return the process that executes *run*, if it lives; never a stranger with its number.

    Told by its environment, not by when it began: that is told differently once the machine's
    clock is set.
    """
    import psutil  # noqa: PLC0415  # each run would pay for what loading the definitions imports

    for pid in _processes_of(instance, run):
        try:
            process = psutil.Process(pid)
            if is_alive(process) and _works_on(instance, process):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def has_lost_its_process(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Tell whether *run* had a process and has none; one that has yet to start has not lost it."""
    known = any(True for _ in _processes_of(instance, run))
    return known and live_process(instance, run) is None


def is_alive(process: psutil.Process) -> bool:
    """Tell whether *process* runs; a zombie does not, its parent has just not looked yet."""
    import psutil  # noqa: PLC0415  # as above

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_dead_run(instance: DagsterInstance, run: DagsterRun) -> None:
    """Tell Dagster what became of *run*, whose process has gone."""
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.is_finished:
        return
    if now.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(now, "Its process has ended.")
    else:
        instance.report_run_failed(now, "Its process has gone.")


def _works_on(instance: DagsterInstance, process: psutil.Process) -> bool:
    """Tell whether *process* was started by a server of this instance."""
    import psutil  # noqa: PLC0415  # as above

    try:
        home = process.environ().get("DAGSTER_HOME")
    except psutil.AccessDenied:
        return False  # another user's
    return home is not None and Path(home).resolve() == Path(instance.root_directory).resolve()


def _processes_of(instance: DagsterInstance, run: DagsterRun) -> Iterator[int]:
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        found = STARTED_PROCESS.search(entry.message)
        if found:
            yield int(found[1])
