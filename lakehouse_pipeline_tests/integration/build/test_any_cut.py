"""However a day is cut into landings and ticks, its bars are those of one build."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.generated import Recording, damage, damaged, recordings
from lakehouse_pipeline_tests.scripted import Script

TABLES = ("market.bars_1s", "market.bars_1m")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


@dataclass
class Landing:
    quotes: pl.DataFrame
    marks: pl.DataFrame


def cut(quotes: pl.DataFrame, coverage: pl.DataFrame, at: list[datetime]) -> list[Landing]:
    """Return what was received between the instants *at*; alive marks go on from cut to cut."""
    alive = pl.col("kind") == Mark.ALIVE
    whole = coverage.filter(alive)
    pieces = [
        whole.filter(pl.col("start") < end, pl.col("end") > start).with_columns(
            pl.max_horizontal("start", pl.lit(start, pl.Datetime("us", "UTC"))).alias("start"),
            pl.min_horizontal("end", pl.lit(end, pl.Datetime("us", "UTC"))).alias("end"),
        )
        for start, end in pairwise(at)
    ]
    landings = []
    for piece, start, end in zip(pieces, at[:-1], at[1:], strict=True):
        received = pl.col("received_at").is_between(start, end, closed="right")
        told = ~alive & pl.col("end").is_between(start, end, closed="right")
        landings.append(Landing(quotes.filter(received), pl.concat([coverage.filter(told), piece])))
    return landings


def delayed(landings: list[Landing], delays: dict[str, list[int]]) -> Iterator[Landing]:
    """Yield what lands together when each session's rows wait for others, in their order."""
    due: list[list[Landing]] = [[] for _ in range(len(landings) * 2)]
    for session, waits in delays.items():
        at = 0
        for number, (landing, wait) in enumerate(zip(landings, waits, strict=False)):
            at = max(at, number + wait)
            own = pl.col("session_id") == session
            due[at].append(Landing(landing.quotes.filter(own), landing.marks.filter(own)))
    for together in due:
        if together:
            yield Landing(
                pl.concat([each.quotes for each in together]),
                pl.concat([each.marks for each in together]),
            )


def land(lake: Lakehouse, landing: Landing) -> None:
    if landing.quotes.height:
        lake.append("raw.quotes", landing.quotes)
    if landing.marks.height:
        lake.append("raw.coverage", landing.marks)


def tick(lake: Lakehouse) -> None:
    seen = current_watermark(lake, "BINANCE")
    if seen is not None:
        tick_1s(lake, "BINANCE", watermark=seen)
        tick_1m(lake, "BINANCE", watermark=seen)


def content(lake: Lakehouse, table: str) -> pl.DataFrame:
    return lake.scan(table).sort("symbol", "open_time").collect()


def assert_ticks_are_a_build(lake: Lakehouse, landings: Iterable[Landing]) -> None:
    day = None
    for landing in landings:
        land(lake, landing)
        tick(lake)
        if day is None and landing.quotes.height:
            day = landing.quotes["received_at"].min().date()
    ticked = {table: content(lake, table) for table in TABLES}

    build_day(lake, "BINANCE", day, studies=[])

    for table, frame in ticked.items():
        assert_frame_equal(frame, content(lake, table))


@settings(max_examples=15)
@given(
    recordings(midnight=False),
    damaged(),
    st.lists(st.integers(5, 60), min_size=1, max_size=12),
    st.lists(
        st.lists(st.sampled_from([0, 0, 0, 0, 1, 4]), min_size=1, max_size=9),
        min_size=4,
        max_size=4,
    ),
)
def test_any_cut_of_a_day_into_ticks_gives_the_bars_of_one_build(
    recording: Recording, changes, lengths, waits
):
    script = recording.script
    quotes, coverage = damage(script.quotes, changes), script.coverage
    at = [script.time(-1000)]
    now = 0.0
    while now < recording.now + 20:
        at.append(script.time(now))
        now += lengths[len(at) % len(lengths)]
    at.append(script.time(now))
    sessions = sorted({*quotes["session_id"], *coverage["session_id"]})
    delays = {
        session: (waits[number % len(waits)] * len(at))[: len(at)]
        for number, session in enumerate(sessions)
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Lakehouse.open(load_settings(state_dir=Path(folder))) as lake,
    ):
        assert_ticks_are_a_build(lake, delayed(cut(quotes, coverage, at), delays))


def test_a_spike_taken_back_after_it_was_built_is_taken_back_in_the_bars(lake: Lakehouse):
    script = Script().session("s1", alive=(0, 300))
    script.snapshot(1, last_price=100.0, cumulative_volume=5.0, trade=0)
    for second in range(2, 50):
        script.trade(second + 0.6, 100.0, 5.0 + second)
    script.trade(58.6, 100.0, 5e9)
    for second in range(70, 290, 10):
        script.trade(second + 0.6, 100.0, second - 10.0)
    at = [script.time(second) for second in (-1, 65, 125, 185, 305)]

    assert_ticks_are_a_build(lake, cut(script.quotes, script.coverage, at))

    assert content(lake, TABLES[0])["volume"].max() == 10


def test_two_sessions_longer_together_than_a_tick_are_one_line_in_the_end(lake: Lakehouse):
    older, newer = Script(writer="older"), Script(writer="newer")
    older.session("old", alive=(0, 405), ended=Ending.HANDED_OVER)
    newer.session("new", alive=(150, 600))
    volume = 50.0
    older.snapshot(1, "old", last_price=100.0, cumulative_volume=volume, trade=0)
    newer.snapshot(150.2, "new", last_price=100.0, cumulative_volume=volume + 148, trade=149)
    for second in range(2, 590):
        volume += 1
        values = {"trade": second, "last_price": float(second)}
        if second < 404:
            older.update(second + 0.6, "old", cumulative_volume=volume, **values)
        if second > 150 and second % 2 == 0:  # half a unit apart, so that they never agree again
            newer.update(second + 0.7, "new", cumulative_volume=volume - 0.5, **values)
    quotes = pl.concat([older.quotes, newer.quotes])
    coverage = pl.concat([older.coverage, newer.coverage])
    at = [older.time(second) for second in range(-1, 620, 30)]

    assert_ticks_are_a_build(lake, cut(quotes, coverage, at))


def test_a_counter_passing_a_power_of_ten_changes_no_bar_built_before(lake: Lakehouse):
    script = Script().session("s1", alive=(0, 300))
    script.snapshot(1, last_price=100.0, cumulative_volume=9_999_990.12345678, trade=0)
    script.trade(10.6, 100.0, 9_999_991.12345679).trade(20.6, 100.0, 9_999_992.98765432)
    script.trade(200.6, 100.0, 10_000_012.98765432)
    at = [script.time(second) for second in (-1, 65, 125, 305)]

    assert_ticks_are_a_build(lake, cut(script.quotes, script.coverage, at))
