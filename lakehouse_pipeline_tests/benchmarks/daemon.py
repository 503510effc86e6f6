"""Whether memory is flat: a settled stack with three streams, watched for an hour.

Daemon, code server and webserver are looked at sixty times; streams and ticks, which come and go,
are ``orchestration``'s. For less than an hour give a scale, or run it by itself:
``python -m lakehouse_pipeline_tests.benchmarks.daemon --seconds 600``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from lakehouse_pipeline_tests.benchmarks.lines import Line
from lakehouse_pipeline_tests.benchmarks.orchestration import started

HOUR = 3_600.0  # seconds
LOOKS = 60
SERVERS = {
    "daemon": "dagster._daemon",
    "code server": "dagster api grpc",
    "webserver": "dagster_webserver",
}
MIB = 1 << 20


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    return watch(folder, HOUR * scale, say)


def watch(folder: Path, seconds: float, say: Callable[[object], None]) -> list[Line]:
    """Compare the last sixth of *seconds* with the second: in the first, caches fill."""
    seen: dict[str, list[float]] = {name: [] for name in (*SERVERS, "all three")}
    with started(folder / "stack") as (owner, _):
        servers = {name: find(owner, words) for name, words in SERVERS.items()}
        begun = time.monotonic()
        for look in range(1, LOOKS + 1):
            time.sleep(max(0.0, begun + look * seconds / LOOKS - time.monotonic()))
            # Shared pages count once: a sum of resident sizes would count Python three times.
            now = {name: server.memory_full_info().pss / MIB for name, server in servers.items()}
            now["all three"] = sum(now.values())
            for name, size in now.items():
                seen[name].append(size)
            sizes = ", ".join(f"{name} {size:.0f} MiB" for name, size in now.items())
            say(f"after {time.monotonic() - begun:.0f} s: {sizes}")
    return [*judge(seen)]


def judge(seen: dict[str, list[float]]) -> Iterator[Line]:
    for name, sizes in seen.items():
        sixth = len(sizes) // 6
        early, late = statistics.median(sizes[sixth : 2 * sixth]), statistics.median(sizes[-sixth:])
        yield Line(f"memory of {name}: last sixth / second", late / early, 1.05)
        yield Line(f"memory of {name} at the end", late, None, "MiB")


def find(owner: psutil.Process, words: str) -> psutil.Process:
    """Return the one child of *owner* whose command line holds *words*."""
    (found,) = (child for child in owner.children() if words in " ".join(child.cmdline()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=HOUR)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = watch(Path(folder), arguments.seconds, lambda text: sys.stderr.write(f"{text}\n"))
    for line in lines:
        bound = "" if line.met is None else f"≤ {line.limit}, {'met' if line.met else 'NOT MET'}"
        sys.stdout.write(f"{line.what}: {line.value:.3f} {line.unit} {bound}\n")
    if any(line.met is False for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
