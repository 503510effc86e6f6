"""Ticks, a day's build and a repeated build give the same rows, on a real lake."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build import views
from lakehouse_pipeline.build.bars import build_1m, current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.gaps import read_gaps
from lakehouse_pipeline.build.indicators import studies_of
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.indicators import rsi
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.windows import MINUTE, SECOND, TimeWindow
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.scripted import DAY, START, SYMBOL, Script, slow_bars

OTHER = "BINANCE:ETHUSDT"
LENGTH = 600  # seconds that are scripted
BUILT = tuple(
    f"market.{name}" for name in ("bars_1s", "bars_1m", "gaps", "indicators_1m", "reconciliation")
)
MIDNIGHT_SOON = START.replace(hour=23, minute=55)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


def script_of(start: datetime, *, late: bool) -> Script:
    """Ten minutes of two symbols, one quiet, with an outage of 40 s and rows that come late."""
    random = Random(7)
    script = Script(start=start)
    script.mark(Mark.OPENED, "s1", 0)
    script.snapshot(0.2, "s1", SYMBOL, last_price=100.0, cumulative_volume=50.0, trade=-3)
    script.snapshot(0.3, "s1", OTHER, last_price=10.0, cumulative_volume=5.0, trade=-90)
    volume, price, day_start = 50.0, 100.0, (start + DAY).replace(hour=0, minute=0)
    for second in range(2, LENGTH, 2):
        session = "s1" if second < 300 else "s2"
        if second == 340:
            script.mark(Mark.OPENED, "s2", 340)
            script.snapshot(
                340.2, "s2", SYMBOL, last_price=price, cumulative_volume=volume + 2, trade=330
            )
            script.snapshot(340.3, "s2", OTHER, last_price=10.0, cumulative_volume=5.0, trade=-90)
            volume += 2
        if 300 <= second < 341:
            continue
        if script.time(second) >= day_start > script.time(second - 2):
            volume = 0.0
        volume = round(volume + random.randrange(1, 99) / 100, 2)
        price = round(price + random.randrange(-9, 10) / 10, 1)
        lag = 40.0 if late and second % 120 == 0 else 0.6
        script.update(
            second + lag,
            session,
            SYMBOL,
            trade=second,
            last_price=price,
            cumulative_volume=volume,
        )
    return script


def land(lake: Lakehouse, script: Script, start: float, end: float) -> None:
    """Commit what was received in these seconds: quotes first, then coverage with alive marks."""
    received = pl.col("received_at").is_between(script.time(start), script.time(end), closed="left")
    lake.append("raw.quotes", script.quotes.filter(received))
    for session, lives in (("s1", (0.0, 300.0)), ("s2", (340.0, float(LENGTH)))):
        first, last = max(start, lives[0]), min(end, lives[1])
        if first < last:
            script.mark(Mark.ALIVE, session, first, last)
        if start < lives[1] <= end and session == "s1":
            script.mark(Mark.ENDED, session, last, reason="closed")
    marks = script.coverage.filter(
        pl.col("start").is_between(script.time(start), script.time(end), closed="left")
        | ((pl.col("kind") == Mark.ENDED) & (pl.col("start") == script.time(end)))
    )
    lake.append("raw.coverage", marks)


def tick(lake: Lakehouse) -> None:
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None
    tick_1s(lake, "BINANCE", watermark=seen)
    tick_1m(lake, "BINANCE", watermark=seen)


def content(lake: Lakehouse, table: str) -> pl.DataFrame:
    frame = lake.scan(table).collect()
    return frame.sort([name for name in frame.columns if frame.schema[name] != pl.Float64])


def days_of(start: datetime) -> list:
    return list(TimeWindow(start, start + timedelta(seconds=LENGTH)).days())


@pytest.mark.parametrize("late", [False, True], ids=["in time", "with late rows"])
@pytest.mark.parametrize("start", [START, MIDNIGHT_SOON], ids=["within a day", "over midnight"])
def test_ticks_and_a_build_of_the_day_give_the_same_rows(
    lake: Lakehouse, *, start: datetime, late: bool
) -> None:
    script = script_of(start, late=late)
    for second in range(0, LENGTH, 30):
        land(lake, script, second, second + 30)
        tick(lake)
    ticked = {table: content(lake, table) for table in BUILT[:2]}

    for day in days_of(start):
        build_day(lake, "BINANCE", day, studies=[])

    for table, frame in ticked.items():
        built = content(lake, table)
        assert built.height > 0
        # A tick writes a bar as closed; that its day is over is known only after midnight.
        assert_frame_equal(frame.drop("state"), built.drop("state"))


def test_a_minute_waits_until_all_its_seconds_are_built(lake: Lakehouse) -> None:
    script = script_of(START, late=False)
    land(lake, script, 0, 100)
    early = current_watermark(lake, "BINANCE")
    assert early is not None
    tick_1s(lake, "BINANCE", watermark=early)
    land(lake, script, 100, 160)
    late = current_watermark(lake, "BINANCE")
    assert late is not None

    tick_1m(lake, "BINANCE", watermark=late)
    build_1m(lake, "BINANCE", TimeWindow.of_day(START.date()), watermark=late)

    assert early < START + 2 * MINUTE < late
    minutes = lake.scan("market.bars_1m").collect()["open_time"].unique().sort()
    assert minutes.to_list() == [START]


def test_seconds_equal_the_slow_definition(lake: Lakehouse) -> None:
    script = script_of(START, late=True)
    land(lake, script, 0, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])
    window = TimeWindow(START, START + timedelta(seconds=LENGTH))

    bars = lake.scan("market.bars_1s", symbols=[SYMBOL]).sort("open_time").collect()

    seen = current_watermark(lake, "BINANCE")
    assert seen is not None
    expected = slow_bars(script.quotes, script.coverage, window, seen, SECOND)
    columns = [name for name in expected[0] if name in bars.columns]
    assert columns
    assert [{name: row[name] for name in columns} for row in expected] == bars.select(
        columns
    ).to_dicts()


def test_building_twice_changes_no_row(lake: Lakehouse) -> None:
    script = script_of(START, late=True)
    land(lake, script, 0, LENGTH)
    studies = studies_of({"rsi": {"length": 3}})
    build_day(lake, "BINANCE", START.date(), studies=studies)
    before = {table: content(lake, table) for table in BUILT}

    build_day(lake, "BINANCE", START.date(), studies=studies)

    for table, frame in before.items():
        assert frame.height > 0
        assert_frame_equal(frame, content(lake, table))


def test_the_outage_is_one_gap_with_its_volume(lake: Lakehouse) -> None:
    script = script_of(START, late=False)
    land(lake, script, 0, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])

    gaps = read_gaps(lake, symbols=[SYMBOL])

    # The other symbol never traded: that is said too, and is no gap.
    quiet = read_gaps(lake, symbols=[OTHER])["cause"].to_list()
    assert set(quiet) - {"feed_gap"} <= {"quiet_market"}
    assert gaps["cause"].to_list() == ["feed_gap"]
    assert gaps["missed_volume"].to_list() == [2.0]
    assert gaps["start"][0] <= script.time(300)
    assert gaps["end"][0] >= script.time(340)


def test_building_one_symbol_leaves_the_others_alone(lake: Lakehouse) -> None:
    script = script_of(START, late=False)
    land(lake, script, 0, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])
    before = {table: content(lake, table) for table in BUILT[:3]}

    build_day(lake, "BINANCE", START.date(), studies=[], symbols=[SYMBOL])

    for table, frame in before.items():
        assert_frame_equal(frame, content(lake, table))


def test_a_session_of_several_days_keeps_its_symbols(lake: Lakehouse) -> None:
    script = Script(start=START)
    script.mark(Mark.OPENED, "s1", 0)
    script.snapshot(0.2, "s1", SYMBOL, last_price=100.0, cumulative_volume=50.0, trade=-3)
    later = 3 * 86_400
    script.mark(Mark.ALIVE, "s1", 0, later)
    script.update(later + 5.5, "s1", trade=later + 5, last_price=101.0, cumulative_volume=7.0)
    script.mark(Mark.ALIVE, "s1", later, later + 100)
    lake.append("raw.quotes", script.quotes)
    lake.append("raw.coverage", script.coverage)
    day = script.time(later).date()

    build_day(lake, "BINANCE", day, studies=[])

    (covered,) = lake.scan("market.bars_1s").collect()["covered_seconds"].to_list()
    assert covered == 1.0


def test_volume_of_bars_and_gaps_is_what_the_counter_gained(lake: Lakehouse) -> None:
    script = script_of(START, late=True)
    land(lake, script, 0, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])

    bars = lake.scan("market.bars_1m", symbols=[SYMBOL]).collect()
    seconds = lake.scan("market.bars_1s", symbols=[SYMBOL]).collect()
    missed = read_gaps(lake, symbols=[SYMBOL])["missed_volume"].sum()

    closed = script.quotes.filter(
        pl.col("symbol") == SYMBOL,
        pl.col("last_time") <= seconds["open_time"].max(),
    )
    gained = closed["cumulative_volume"].max() - 50.0
    assert seconds["volume"].sum() + missed == pytest.approx(gained, abs=1e-9)
    in_minutes = seconds.filter(pl.col("open_time") < bars["open_time"].max() + MINUTE)
    assert bars["volume"].sum() == pytest.approx(in_minutes["volume"].sum(), abs=1e-9)


def test_any_interval_is_the_roll_up_of_its_minutes(lake: Lakehouse) -> None:
    script = script_of(START, late=False)
    land(lake, script, 0, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])

    minutes = views.read_bars(lake, SYMBOL, step=MINUTE)
    fives = views.read_bars(lake, SYMBOL, step=5 * MINUTE)

    assert fives["open_time"].to_list() == [START, START + 5 * MINUTE]
    assert fives["high"][0] == minutes["high"][:5].max()
    assert fives["volume"][0] == pytest.approx(minutes["volume"][:5].sum(), abs=1e-9)


@pytest.mark.parametrize("studies", [[], [rsi()]], ids=["bars", "with an indicator"])
def test_a_longer_bar_says_that_it_is_forming_and_what_it_lacks(lake: Lakehouse, studies) -> None:
    script = script_of(START, late=False)
    land(lake, script, 0, LENGTH)
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None
    tick_1s(lake, "BINANCE", watermark=seen)
    tick_1m(lake, "BINANCE", watermark=seen)

    ten = views.read_with_studies(lake, SYMBOL, studies, step=10 * MINUTE).row(0, named=True)
    five = views.read_with_studies(lake, SYMBOL, studies, step=5 * MINUTE).row(0, named=True)

    assert (ten["state"], five["state"]) == ("forming", "closed")
    assert ten["flags"] & Flag.PARTIAL  # forty seconds of nothing
    assert five["covered_seconds"] == pytest.approx(300 - 0.2 - 5)


def test_a_dense_view_says_why_an_interval_is_empty(lake: Lakehouse) -> None:
    script = script_of(START, late=False)
    land(lake, script, 0, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])

    dense = views.read_dense_bars(lake, SYMBOL, step=SECOND)

    kinds = dict(zip(dense["open_time"], dense["fill_kind"], strict=True))
    assert kinds[START + 101 * SECOND] == "quiet"
    assert kinds[START + 320 * SECOND] == "gap"
    assert dense.height == (dense["open_time"][-1] - dense["open_time"][0]) / SECOND + 1
    quiet = [at for at, kind in kinds.items() if kind == "quiet"]
    for at in quiet:  # also where nothing but it was asked for
        window = TimeWindow(at, at + SECOND)
        alone = views.read_dense_bars(lake, SYMBOL, step=SECOND, window=window)
        assert alone.equals(dense.filter(pl.col("open_time") == at))


def test_minutes_go_with_the_seconds_they_were_made_of(lake: Lakehouse):
    land(lake, script_of(START, late=False), 0, 240)
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None
    tick_1s(lake, "BINANCE", watermark=seen)
    tick_1m(lake, "BINANCE", watermark=seen)
    before = lake.scan("market.bars_1m").collect()
    gone = TimeWindow(START + MINUTE, START + 2 * MINUTE)

    nothing = lake.scan("market.bars_1s").collect().clear()
    lake.overwrite("market.bars_1s", nothing, slice=Slice("BINANCE", gone))
    tick_1m(lake, "BINANCE", watermark=seen)

    kept = before.filter(pl.col("open_time") != gone.start)
    assert 0 < kept.height < before.height
    assert_frame_equal(lake.scan("market.bars_1m").collect(), kept, check_row_order=False)
