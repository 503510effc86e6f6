"""Dagster's store over days: whether it is flat after the third, and what retention leaves.

The real jobs run in this process on a real SQLite instance, as fast as they go: ticks, hourly
reports, the night's run, then the deletion, whose clock is set past the day. Scale 1 is 1,440 ticks
and 24 reports a day; a smaller scale makes fewer of both, and sizes are given for a whole day.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import dagster as dg

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import DAY
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.benchmarks.lines import Line
from lakehouse_pipeline_tests.scripted import Script

DAYS = 5
TICKS, REPORTS = 1_440, 24
EXCHANGES = ["BINANCE", "BYBIT", "OKX"]
NOTHING: Mapping[str, object] = MappingProxyType({})
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
FIRST = datetime(2026, 1, 5, tzinfo=UTC)


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    config = folder / "exchanges.yaml"
    names = ", ".join(f"{name}: {{symbols: [BTCUSDT]}}" for name in EXCHANGES)
    config.write_text(f"exchanges: {{{names}}}")
    chosen = {"LAKEHOUSE_STATE_DIR": str(folder), "LAKEHOUSE_CONFIG": str(config)}
    home = folder / "dagster"
    home.mkdir()
    per_day = max(2, round(TICKS * scale))
    reports = max(1, round(REPORTS * scale))
    with (
        mock.patch.dict(os.environ, chosen),
        dg.DagsterInstance.local_temp(str(home)) as instance,
        Lakehouse.open(load_settings()) as lake,
    ):
        sizes = [
            _day(lake, instance, home, number, per_day, reports, say) for number in range(DAYS)
        ]
        kept = _finalized(instance)
    # Deleted each hour once they are a day old, so there are never more than 25 hours of ticks.
    ticked = max(ticked for ticked, _ in sizes) * TICKS / per_day * 25 / 24
    growth = (sizes[-1][1] - sizes[2][1]) / (DAYS - 3)
    say(f"{per_day} ticks a day, one for {TICKS / per_day:.0f} of a real one")
    return [
        Line(
            "the store at its largest, for whole days", (sizes[-1][1] + ticked) / 1e6, 500.0, "MB"
        ),
        Line("what a day leaves after the third", growth / 1e6, 1.0, "MB"),
        Line("finished days without a record", DAYS * len(EXCHANGES) - kept, 0, "days"),
    ]


def _day(
    lake: Lakehouse,
    instance: dg.DagsterInstance,
    home: Path,
    number: int,
    ticks: int,
    reports: int,
    say: Callable[[object], None],
) -> tuple[int, int]:
    """Do all runs of one day; return what its ticks took, and what the deletion left of all."""
    from lakehouse_pipeline.definitions import build_definitions
    from lakehouse_pipeline.defs import jobs, retention
    from lakehouse_pipeline.defs.partitions import range_tags

    defs = build_definitions(load_settings())
    start = FIRST + number * DAY
    today = range_tags(start.date(), start.date(), EXCHANGES)
    step = DAY / ticks

    def do(
        job: str, tags: dict[str, str], config: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        done = defs.resolve_job_def(job).execute_in_process(
            instance=instance, tags=tags, run_config={**QUIET, **config}, raise_on_error=False
        )
        assert done.success, f"{job} of day {number}"

    opened = _size(home)
    for tick in range(ticks):
        for exchange in EXCHANGES:
            _land(lake, exchange, start + tick * step, step)
        do(jobs.BUILD_TODAY, today, jobs.TICK_CONFIG)
        if tick % max(1, ticks // reports) == 0:
            do(jobs.REPORT_GAPS, today, jobs.HOURLY_CONFIG)
    ticked = _size(home) - opened
    first = max(FIRST, start - 3 * DAY)
    do(jobs.FINALIZE_YESTERDAY, range_tags(first.date(), start.date(), EXCHANGES))
    before = _size(home)
    for run in list(retention.forgettable(instance, now=datetime.now(UTC) + retention.KEPT)):
        retention.forget(instance, run.run_id)
    say(f"day {number + 1}: {before / 1e6:.1f} MB, then {_size(home) / 1e6:.1f} MB")
    return ticked, _size(home)


def _land(lake: Lakehouse, exchange: str, at: datetime, length: timedelta) -> None:
    """Land one trade a second for ten seconds, in a session of *length*."""
    name = f"{exchange}-{at:%Y%m%dT%H%M%S}"
    script = Script(start=at, writer=name)
    script.session(name, alive=(0, length.total_seconds() + 6))
    script.snapshot(0.5, name, last_price=99.0, cumulative_volume=1.0, trade=-60)
    for second in range(1, 11):
        script.trade(second + 0.3, 100.0 + second % 7, 1.0 + second, session=name)
    for table, frame in (("raw.quotes", script.quotes), ("raw.coverage", script.coverage)):
        renamed = frame["symbol"].str.replace("BINANCE", exchange)
        told = frame["exchange"].str.replace("BINANCE", exchange)
        lake.append(table, frame.with_columns(renamed, told))


def _finalized(instance: dg.DagsterInstance) -> int:
    """Return of how many partitions the store still says that their minutes were built."""
    return len(instance.get_materialized_partitions(dg.AssetKey(["market", "bars_1m"])))


def _size(home: Path) -> int:
    return sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
