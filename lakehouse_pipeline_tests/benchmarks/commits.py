"""What a commit costs after a thousand of them, with expiry running as it does.

Each is a worker's: rows and the writer's progress in one transaction. The sink expires by itself
once enough snapshots have gathered, within the commit that finds them; that commit pays for it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lakehouse_pipeline.ingest.rows import QUOTES, TARGETS, build_frame, micros
from lakehouse_pipeline.ingest.session import SECOND
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.metadata import EXPIRED_AT_ONCE
from lakehouse_pipeline.lake.tables import SNAPSHOTS_KEPT
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline_tests.benchmarks.lines import Line

COMMITS = 1_000
ROWS = 20  # a commit
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    count = int(COMMITS * scale)
    spent = []
    with Lakehouse.open(Settings(state_dir=folder)) as lake:
        for number in range(1, count + 1):
            frame = build_frame(TARGETS[QUOTES], _rows(number), exchange="X", writer_id="w")
            began = time.perf_counter()
            lake.append("raw.quotes", frame, progress={"writer.w": number})
            spent.append(time.perf_counter() - began)
        kept = len(lake.load("raw.quotes").metadata.snapshots)
        landed = lake.scan("raw.quotes").collect()
    assert landed["sequence"].sort().to_list() == list(range(ROWS, (count + 1) * ROWS))
    assert kept < SNAPSHOTS_KEPT + EXPIRED_AT_ONCE, "expiry did not run"
    early, late = spent[count // 50 : count * 12 // 100], spent[count * 9 // 10 :]
    before, after = statistics.median(early), statistics.median(late)
    say(f"{before * 1e3:.0f} ms, then {after * 1e3:.0f} ms; {kept} snapshots kept")
    return [Line("median of the last tenth of commits / of the 2nd to 12th %", after / before, 1.3)]


def _rows(number: int) -> list[tuple[int, tuple[object, ...]]]:
    at = micros(NOON) + number * 15 * SECOND
    return [(number * ROWS + i, _row(f"X:S{i}", at + i)) for i in range(ROWS)]


def _row(symbol: str, at: int) -> tuple[object, ...]:
    row = dict.fromkeys(TARGETS[QUOTES].columns) | {
        "symbol": symbol,
        "event_time": at,
        "received_at": at,
        "kind": "quote",
        "changed": "bid",
        "session_id": "s",
        "bid": 1.0,
    }
    return tuple(row.values())
