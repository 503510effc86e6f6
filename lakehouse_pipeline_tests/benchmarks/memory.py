"""How much memory sealing and compaction take, with few partitions and with four times as many.

Both must be bounded by one partition: more of them take longer, not more memory.
``python -m lakehouse_pipeline_tests.benchmarks.memory FOLDER seal|compact`` does it once, in a
process of its own, and prints bytes. Sealing moves at most ``BATCH_ROWS`` rows at once; here that
is one hot hour, so that a small lake has many batches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lakehouse_pipeline.lake import Lakehouse, maintenance
from lakehouse_pipeline.market.windows import DAY, HOUR
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.benchmarks import files
from lakehouse_pipeline_tests.benchmarks.lines import Line

SYMBOLS = 3  # of the smaller lake, and of each hot hour
SECONDS = 3600
MODULE = "lakehouse_pipeline_tests.benchmarks.memory"


def run(folder: Path, *, scale: float, say: Callable[[str], object]) -> list[Line]:
    """Rewrite *scale* of twelve hours, and four times as many partitions of the same size."""
    hours = max(4, round(12 * scale))
    few = fill(folder / "few hours", hours=hours // 4, symbols=SYMBOLS)
    many = fill(folder / "many hours", hours=hours // 4 * 4, symbols=SYMBOLS)
    sealing = peak(few, "seal"), peak(many, "seal")
    say("sealed")
    few = fill(folder / "few symbols", hours=hours, symbols=SYMBOLS)
    many = fill(folder / "many symbols", hours=hours, symbols=4 * SYMBOLS)
    for each in (few, many):
        seal_hour_by_hour(each, hours=hours)
    compacting = peak(few, "compact"), peak(many, "compact")
    say("compacted")
    of_hours, of_symbols = (b / a for a, b in (sealing, compacting))
    return [
        Line("seal: peak memory of 4 times the hours / of one", of_hours, 1.5),
        Line("seal: peak memory", sealing[1] / 2**20, None, "MiB"),
        Line("compact: peak memory of 4 times the symbols / of one", of_symbols, 1.5),
        Line("compact: peak memory", compacting[1] / 2**20, None, "MiB"),
    ]


def fill(folder: Path, *, hours: int, symbols: int) -> Path:
    """Make a lake of quotes, one hot file an hour, each symbol a quote a second."""
    with files.open_lake(folder) as lake:
        for hour in range(hours):
            first = hour * SECONDS * symbols
            at = files.START + hour * HOUR
            frame = files.quotes(at, seconds=SECONDS, symbols=symbols, first=first)
            lake.append(files.TABLE, frame)
    return folder


def seal_hour_by_hour(folder: Path, *, hours: int) -> None:
    with files.open_lake(folder) as lake:
        for hour in range(1, hours + 1):
            maintenance.seal(lake, files.TABLE, before=files.START + hour * HOUR)


def peak(folder: Path, verb: str) -> int:
    """Return how many bytes *verb* takes at most on the lake in *folder*."""
    command = [
        sys.executable,
        "-m",
        "lakehouse_pipeline_tests.benchmarks.memory",
        str(folder),
        verb,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def rewrite(folder: Path, verb: str) -> int:
    maintenance.BATCH_ROWS = SYMBOLS * SECONDS
    settings = Settings(state_dir=folder, config=folder / "none.yaml")
    with Lakehouse.open(settings) as lake:
        lake.files(files.TABLE)
        Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak is counted from here
        before = _memory("VmRSS")
        rewriting = maintenance.seal if verb == "seal" else maintenance.compact
        done = rewriting(lake, files.TABLE, before=files.START + DAY)
        assert done.rows
        return _memory("VmHWM") - before


def _memory(field: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


if __name__ == "__main__":
    sys.stdout.write(f"{rewrite(Path(sys.argv[1]), sys.argv[2])}\n")
