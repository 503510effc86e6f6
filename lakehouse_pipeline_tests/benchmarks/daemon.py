"""Whether the daemon's memory is flat: a settled stack with three streams, watched for an hour."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from lakehouse_pipeline_tests.benchmarks.lines import Line
from lakehouse_pipeline_tests.benchmarks.orchestration import started

HOUR = 3_600.0  # seconds


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    memory: list[int] = []
    with started(folder / "stack") as (owner, _):
        (daemon,) = [
            process
            for process in owner.children(recursive=True)
            if "dagster._daemon" in process.cmdline()
        ]
        end = time.monotonic() + HOUR * scale
        while time.monotonic() < end:
            memory.append(daemon.memory_full_info().uss)
            time.sleep(1.0)
    # Its threads and caches fill in the first quarter.
    quarter = len(memory) // 4
    early, late = max(memory[quarter : 2 * quarter]), max(memory[3 * quarter :])
    say(f"{early / 2**20:.0f} MiB in the second quarter, {late / 2**20:.0f} MiB in the last")
    return [Line("the daemon's memory, last quarter / second", late / early, 1.05)]
