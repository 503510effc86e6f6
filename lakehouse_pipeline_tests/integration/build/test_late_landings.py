"""Whatever lands late, and whenever ticks run, they come to the rows of a build of the day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.freshness import closed_days
from lakehouse_pipeline.build.indicators import build_indicators, studies_of
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script

OTHER = "BINANCE:ETHUSDT"
LENGTH = 360
COMMITS = 15  # seconds
# An outage from 100 to 130; two sessions together from 230 to 250.
SESSIONS = {"s1": (0, 100), "s2": (130, 250), "s3": (230, LENGTH)}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


@dataclass
class Landing:
    at: float
    table: str
    rows: pl.DataFrame


def recordings(chance: Random) -> list[Script]:
    """One script a session, each by a writer of its own; some updates are received late."""
    scripts = {}
    for name, (first, last) in SESSIONS.items():
        script = scripts[name] = Script(writer=f"writer-{name}").mark(Mark.OPENED, name, first)
        for begin in range(first, last, COMMITS):
            script.mark(Mark.ALIVE, name, begin, min(begin + COMMITS, last))
        script.mark(Mark.ENDED, name, last, reason=Ending.CLOSED.value)
    begun: set[tuple[str, str]] = set()
    volume = dict.fromkeys((SYMBOL, OTHER), 50.0)
    for second in range(LENGTH - 8):
        for symbol, often in ((SYMBOL, 0.9), (OTHER, 0.05)):
            traded = chance.random() < often
            volume[symbol] += traded * chance.randrange(1, 9)
            lag = chance.choice([0.6, 0.6, 0.6, 0.6, 1.4, 9.0]) if traded else 0.6
            for name, (first, last) in SESSIONS.items():
                if not first <= second + lag < last - 0.1:
                    continue
                state = {"last_price": float(second), "cumulative_volume": volume[symbol]}
                if (name, symbol) not in begun:
                    begun.add((name, symbol))
                    scripts[name].snapshot(second + lag, name, symbol, trade=second, **state)
                elif traded:
                    scripts[name].update(second + lag, name, symbol, trade=second, **state)
    return list(scripts.values())


def landings(script: Script, chance: Random) -> Iterator[Landing]:
    """The commits of one writer, in its order, each as late as it may be."""
    due = 0.0
    for begin in range(0, LENGTH, COMMITS):
        within = script.time(begin), script.time(begin + COMMITS)
        rows = script.quotes.filter(pl.col("received_at").is_between(*within, closed="left"))
        marks = script.coverage.filter(pl.col("start").is_between(*within, closed="left"))
        for table, part in (("raw.quotes", rows), ("raw.coverage", marks)):
            late = chance.choice([0, 0, 0, 0, 20, 150])
            due = max(due, begin + COMMITS + late)
            if part.height:
                yield Landing(due, table, part)


def tick(lake: Lakehouse) -> None:
    seen = current_watermark(lake, "BINANCE")
    if seen is not None:
        tick_1s(lake, "BINANCE", watermark=seen)
        tick_1m(lake, "BINANCE", watermark=seen)


def content(lake: Lakehouse, table: str) -> pl.DataFrame:
    return lake.scan(table).sort("symbol", "open_time").collect()


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_ticks_and_a_build_agree_however_late_it_landed(lake: Lakehouse, seed: int):
    chance = Random(seed)
    scripts = recordings(chance)
    landed = sorted(
        (landing for script in scripts for landing in landings(script, chance)),
        key=lambda landing: landing.at,
    )
    for landing in landed:
        lake.append(landing.table, landing.rows)
        if chance.random() < 0.4:
            tick(lake)
    tick(lake)
    ticked = {name: content(lake, name) for name in ("market.bars_1s", "market.bars_1m")}

    build_day(lake, "BINANCE", START.date(), studies=[])

    for name, frame in ticked.items():
        assert frame.height > 0
        assert_frame_equal(frame, content(lake, name))
    heads = {name: lake.head(name) for name in ticked}
    tick(lake)
    assert {name: content(lake, name).hash_rows().sum() for name in heads} == {
        name: frame.hash_rows().sum() for name, frame in ticked.items()
    }


def test_an_evening_that_lands_late_makes_the_next_day_due_until_it_is_right(lake: Lakehouse):
    midnight = START.replace(hour=0, minute=0, second=0)
    evening = Script(start=midnight - 30 * MINUTE, writer="wa")
    evening.session("sa", alive=(0, 1798), ended=Ending.HANDED_OVER)
    evening.snapshot(0.2, "sa", last_price=100.0, cumulative_volume=1000.0, trade=-1)
    night = Script(start=midnight - MINUTE, writer="wb")
    night.session("sb", alive=(50, 30 * 3600), ended=None)
    night.snapshot(50.2, "sb", last_price=100.0, cumulative_volume=1029.0, trade=30)
    for minute in range(1, 30):
        at = minute * 60 + 10
        evening.trade(at + 0.3, 100.0 + minute**2 % 7, 1000.0 + minute, session="sa", trade=at)
        night.trade(at + 0.3, 100.0 + minute**2 % 5, 1029.0 + minute, session="sb", trade=at)
    studies = studies_of({"rsi": {"length": 3}})

    def land(script: Script) -> None:
        lake.append("raw.quotes", script.quotes)
        lake.append("raw.coverage", script.coverage)

    def catch_up() -> list[date]:
        built = []
        while due := closed_days(lake, "BINANCE", watermark=night.time(30 * 3600)):
            built.append(due[0].day)
            build_day(lake, "BINANCE", due[0].day, studies=studies)
        return built

    def values() -> list[float | None]:
        rows = lake.scan("market.indicators_1m", window=TimeWindow.of_day(midnight.date()))
        return rows.sort("open_time").collect()["value"].to_list()

    land(night)
    # The minute before midnight has no bar, but it is recorded and so built.
    assert catch_up() == [midnight.date() - DAY, midnight.date()]
    alone = values()
    land(evening)
    # Whoever builds the later day alone, or first, leaves it due.
    build_day(lake, "BINANCE", midnight.date(), studies=studies)

    assert catch_up() == [midnight.date() - DAY, midnight.date()]

    caught_up = values()
    assert (alone[0], alone[2]) == (None, None)
    assert None not in caught_up
    watermark = night.time(30 * 3600)
    build_indicators(lake, "BINANCE", midnight.date(), studies, watermark=watermark)
    assert values() == caught_up
