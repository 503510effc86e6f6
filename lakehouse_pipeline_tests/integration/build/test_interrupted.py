"""A build killed anywhere leaves each table as it was or as it shall be; the next one ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.indicators import studies_of
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.settings import Settings, load_settings
from lakehouse_pipeline_tests.scripted import START, Script

VICTIM = Path(__file__).parents[2] / "chaos" / "crashing_build.py"
# In the order they are built; a kill leaves new what was built before its place.
TABLES = [
    f"market.{name}"
    for name in ("symbols", "gaps", "bars_1s", "bars_1m", "indicators_1m", "reconciliation")
]
PLACES = [
    ("computed", "market.symbols"),
    ("files written", "market.gaps"),
    ("manifests written", "market.bars_1s"),
    ("committed", "market.bars_1m"),
    ("manifests written", "market.reconciliation"),
]


def build(settings: Settings, place: str, table: str) -> int:
    day = str(START.date())
    options = ["build", "--exchange", "BINANCE", "--from", day, "--to", day]
    done = subprocess.run(
        [sys.executable, str(VICTIM), place, table, *options],
        env={**os.environ, "LAKEHOUSE_STATE_DIR": str(settings.state_dir)},
        cwd=settings.state_dir,
        capture_output=True,
        check=False,
    )
    return done.returncode


def land(lake: Lakehouse, first: int, end: int) -> None:
    """Five minutes of a session, one session each call; trades each second but for a pause."""
    name = f"session-{first}"
    script = Script(writer=name).session(name, alive=(first, end - 60), ended=Ending.CLOSED)
    script.snapshot(first + 0.5, name, last_price=100.0, cumulative_volume=first, trade=first)
    for second in range(first + 1, end - 61):
        price = 100.0 + second**2 % 17
        script.update(
            second + 0.4, name, trade=second, last_price=price, cumulative_volume=float(second)
        )
    lake.append("raw.quotes", script.quotes)
    lake.append("raw.coverage", script.coverage)


def contents(lake: Lakehouse) -> dict[str, tuple[int, int]]:
    """Return how many rows each table has, and a hash of them in any order."""
    found = {}
    for table in TABLES:
        rows = lake.scan(table).collect()
        found[table] = rows.height, int(rows.hash_rows().sum())
    return found


@pytest.mark.timeout(240)
def test_a_build_killed_anywhere_leaves_each_table_old_or_new(tmp_path: Path) -> None:
    killed, undisturbed = (load_settings(state_dir=tmp_path / name) for name in ("a", "b"))
    for settings in (killed, undisturbed):
        with Lakehouse.open(settings) as lake:
            land(lake, 0, 300)
            build_day(lake, "BINANCE", START.date(), studies=studies_of(settings.indicators))
            old = contents(lake)
            land(lake, 300, 900)
    assert build(undisturbed, "never", "") == 0
    with Lakehouse.open(undisturbed) as lake:
        new = contents(lake)
    assert all(old[table] != new[table] for table in TABLES)

    seen: list[list[str]] = []
    for place, table in PLACES:
        assert build(killed, place, table) == -signal.SIGKILL, (place, table)
        with Lakehouse.open(killed) as lake:
            now = contents(lake)
        assert all(now[each] in (old[each], new[each]) for each in TABLES), (place, table)
        seen.append([each for each in TABLES if now[each] == new[each]])

    assert seen == [
        TABLES[: TABLES.index(table) + (place == "committed")] for place, table in PLACES
    ]
    assert build(killed, "never", "") == 0
    with Lakehouse.open(killed) as lake:
        assert contents(lake) == new
