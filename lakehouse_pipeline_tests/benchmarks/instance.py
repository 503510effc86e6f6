"""Dagster's store over days: whether it is flat after the third, and what retention leaves.

The real jobs run in this process on a real SQLite instance, as fast as they go: ticks, hourly
reports, the night's run, then the deletion, whose clock is set past the day. A day here is one for
``SHORTENED`` of a real day's 1,440 ticks and 24 reports, which makes four days in ten minutes; what
ticks and reports take is multiplied again for the figures. A smaller scale shortens days further.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import dagster as dg

from lakehouse_pipeline.defs import jobs, retention
from lakehouse_pipeline.defs.partitions import Part, range_tags
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.windows import DAY
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.benchmarks.lines import Line
from lakehouse_pipeline_tests.scripted import Script

DAYS = 4
TICKS, REPORTS = 1_440, 24  # of a real day
SHORTENED = 24
EXCHANGES = ["BINANCE", "BYBIT", "OKX"]
NOTHING: Mapping[str, object] = MappingProxyType({})
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
FIRST = datetime(2026, 1, 5, tzinfo=UTC)
MB = 1e6


@dataclass(frozen=True)
class Day:
    """Bytes of the store at the day's end, what made them, and what is left of them."""

    largest: int
    by_ticks: int
    by_reports: int
    left: int
    lost: int  # partitions of finished days whose record was deleted

    def whole(self, ticks: int, reports: int, *, days: float) -> float:
        """Return bytes of a store that holds *days* of all ticks and reports."""
        every = self.by_ticks * TICKS / ticks + self.by_reports * REPORTS / reports
        return self.largest - self.by_ticks - self.by_reports + every * days


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    config = folder / "exchanges.yaml"
    names = ", ".join(f"{name}: {{symbols: [BTCUSDT]}}" for name in EXCHANGES)
    config.write_text(f"exchanges: {{{names}}}")
    chosen = {"LAKEHOUSE_STATE_DIR": str(folder), "LAKEHOUSE_CONFIG": str(config)}
    home = folder / "dagster"
    home.mkdir()
    reports = max(1, round(REPORTS / SHORTENED * scale))
    ticks = max(2, reports, round(TICKS / SHORTENED * scale))
    say(f"a day has {ticks} ticks and {reports} reports: one for {TICKS / ticks:.0f} of a real one")
    with (
        mock.patch.dict(os.environ, chosen),
        dg.DagsterInstance.local_temp(str(home)) as instance,
        Lakehouse.open(load_settings()) as lake,
    ):
        simulation = Simulation(lake, instance, home)
        days = []
        for number in range(DAYS):
            day = simulation.day(number, ticks, reports)
            days.append(day)
            whole = day.whole(ticks, reports, days=1) / MB
            say(
                f"day {number + 1}: {day.largest / MB:.1f} MB, {whole:.0f} MB of a whole day, "
                f"{day.left / MB:.1f} MB once it was a day old"
            )
        kept = simulation.recorded()
    # Deleted each hour once they are a day old, so there are never more than 25 hours of them.
    largest = [day.whole(ticks, reports, days=25 / 24) for day in days]
    return [
        Line("the store at its largest, for whole days", max(largest) / MB, 500.0, "MB"),
        Line("the same on the last day / on the third", largest[-1] / largest[2], 1.05),
        Line("what a day leaves for good, after the third",
             (days[-1].left - days[2].left) / (DAYS - 3) / MB, 1.0, "MB"),
        Line("records of finished days that were deleted", sum(day.lost for day in days), 0),
        Line("finished days without a record", DAYS * len(EXCHANGES) - kept, 0),
    ]  # fmt: skip


class Simulation:
    """Days of a deployment in *home*, one after the other."""

    def __init__(self, lake: Lakehouse, instance: dg.DagsterInstance, home: Path) -> None:
        from lakehouse_pipeline.definitions import build_definitions

        self._lake = lake
        self._instance = instance
        self._home = home
        self._defs = build_definitions(load_settings())

    def day(self, number: int, ticks: int, reports: int) -> Day:
        """Do all runs of one day, then forget it as if it were a day old."""
        start = FIRST + number * DAY
        today = range_tags(start.date(), start.date(), EXCHANGES)
        step = DAY / ticks
        by_ticks = by_reports = 0
        for tick in range(ticks):
            for exchange in EXCHANGES:
                _land(self._lake, exchange, start + tick * step, step)
            by_ticks += self._do(jobs.BUILD_TODAY, today, jobs.TICK_CONFIG)
            if tick % (ticks // reports) == 0:
                by_reports += self._do(jobs.REPORT_GAPS, today, jobs.HOURLY_CONFIG)
        first = max(FIRST, start - 3 * DAY)
        self._do(jobs.FINALIZE_YESTERDAY, range_tags(first.date(), start.date(), EXCHANGES))
        largest, said = self._size(), self._records(start)
        for run in list(retention.forgettable(self._instance, now=datetime.now(UTC) + DAY)):
            retention.forget(self._instance, run.run_id)
        left = self._records(start)
        lost = sum(left.get(key) != said[key] for key in said)
        return Day(largest, by_ticks, by_reports, self._size(), lost)

    def recorded(self) -> int:
        """Return of how many partitions the store still says that their minutes were built."""
        asset = dg.AssetKey(["market", "bars_1m"])
        return len(self._instance.get_materialized_partitions(asset))

    def _do(self, job: str, tags: dict[str, str], config: Mapping[str, object] = NOTHING) -> int:
        """Run *job* and return by how many bytes the store has grown."""
        before = self._size()
        done = self._defs.resolve_job_def(job).execute_in_process(
            instance=self._instance, tags=tags, run_config={**QUIET, **config}, raise_on_error=False
        )
        assert done.success, f"{job} of {tags}"
        return self._size() - before

    def _records(self, last: datetime) -> dict[tuple[dg.AssetKey, str], str]:
        """Return which run, that is still there, says last of each finished partition."""
        words = retention.last_words(
            self._instance, since=datetime.now(UTC) - retention.LOOKED_BACK
        )
        return {
            (asset, partition): run_id
            for (asset, partition), run_id in words.items()
            if Part.of(partition).day <= last.date() and self._instance.has_run(run_id)
        }

    def _size(self) -> int:
        return sum(file.stat().st_size for file in self._home.rglob("*") if file.is_file())


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
