"""A counter's kind is found in the lake, stored, and booked by, whoever builds and in any order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build.bars import build_1m, current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.symbols import build_symbols
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow
from lakehouse_pipeline.settings import load_settings
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script

ROLLING = "BINANCE:ROLLUSDT"
LENGTH = 600
WHOLE = TimeWindow.of_day(START.date())


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


class Tape:
    """A trade of whole lots in every second, and yesterday's beside it."""

    def __init__(self, length: int = LENGTH) -> None:
        random = Random(3)
        self.today = [random.randrange(1, 100) for _ in range(length)]
        self.yesterday = [random.randrange(1, 100) for _ in range(length)]

    def rolling(self, second: int) -> float:
        """What was traded in the day that ends with *second*; 10,000 before the tape."""
        return float(10_000 + sum(self.today[: second + 1]) - sum(self.yesterday[: second + 1]))

    def minute(self, number: int) -> float:
        return float(sum(self.today[60 * number : 60 * number + 60]))

    def history(self) -> pl.DataFrame:
        sums = [sum(self.yesterday[60 * n : 60 * n + 60]) for n in range(LENGTH // 60)]
        rows = [
            ("BINANCE", ROLLING, START - DAY + n * MINUTE, 1.0, 1.0, 1.0, 1.0, float(lots), START)
            for n, lots in enumerate(sums)
        ]
        return pl.DataFrame(rows, schema=HISTORY, orient="row")


def recorded(tape: Tape) -> Script:
    script = Script().mark(Mark.OPENED, "s1", -1)
    for symbol, volume in ((SYMBOL, 50.0), (ROLLING, 10_000.0)):
        state = {"last_price": 1.0, "cumulative_volume": volume, "update_mode": "streaming"}
        script.snapshot(-0.5, "s1", symbol, trade=-1, **state)
    told = {"currency_code": "USDT", "minmov": 1, "pricescale": 100, "type": "spot"}
    script.mark(Mark.DESCRIBED, "s1", -0.5, symbol=SYMBOL)
    script.marks[-1] = (*script.marks[-1][:7], json.dumps(told), *script.marks[-1][8:])
    total = 50
    for second in range(LENGTH):
        total += tape.today[second]
        for symbol, volume in ((SYMBOL, float(total)), (ROLLING, tape.rolling(second))):
            script.update(
                *(second + 0.95, "s1", symbol),
                trade=second,
                last_price=1.0,
                cumulative_volume=volume,
            )
    return script


def land(lake: Lakehouse, script: Script, start: float, end: float) -> None:
    """Commit what was received in these seconds, and that the session was alive."""
    within = (script.time(start), script.time(end))
    lake.append(
        "raw.quotes", script.quotes.filter(pl.col("received_at").is_between(*within, closed="left"))
    )
    script.mark(Mark.ALIVE, "s1", start, end)
    marks = script.coverage.filter(pl.col("start").is_between(*within, closed="left"))
    lake.append("raw.coverage", marks)


def tick(lake: Lakehouse) -> None:
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None
    tick_1s(lake, "BINANCE", watermark=seen)
    tick_1m(lake, "BINANCE", watermark=seen)


def table(lake: Lakehouse, name: str) -> pl.DataFrame:
    time = "valid_from" if name == "market.symbols" else "open_time"
    return lake.scan(name).sort("symbol", time).collect()


def test_what_a_symbol_is_comes_from_the_feed_and_its_counter(lake: Lakehouse):
    land(lake, recorded(Tape()), -1, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])

    rows = table(lake, "market.symbols")

    known, rolling = rows.to_dicts()
    assert (known["currency"], known["type"]) == ("USDT", "spot")
    assert (known["pricescale"], known["minmov"]) == (100, 1)
    assert known["update_mode"] == "streaming"
    assert (known["counter_kind"], known["volume_basis"]) == ("session", "counter_delta")
    assert (rolling["counter_kind"], rolling["volume_basis"]) == ("rolling", "rolled_comp")
    assert "steps fell" in rolling["counter_evidence"]
    assert rows["valid_to"].null_count() == 2
    assert rows["valid_from"].min() == START - timedelta(seconds=0.5)


def test_a_rolling_counter_gives_no_seconds_and_exact_minutes(lake: Lakehouse):
    tape = Tape()
    lake.append("market.history_1m", tape.history())
    land(lake, recorded(tape), -1, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])

    seconds = table(lake, "market.bars_1s").filter(symbol=ROLLING)
    minutes = table(lake, "market.bars_1m").filter(symbol=ROLLING)

    assert seconds["volume"].null_count() == seconds.height > 0
    assert seconds["volume_basis"].unique().to_list() == ["unknown"]
    # The first minute was not seen from its begin.
    assert minutes["volume"].to_list() == [None, *(tape.minute(n) for n in range(1, 9))]
    assert minutes["volume_basis"].to_list() == ["unknown", *["rolled_comp"] * 8]


def test_official_minutes_lend_their_volume_to_those_without(lake: Lakehouse):
    tape = Tape()
    land(lake, recorded(tape), -1, LENGTH)
    official = tape.history().with_columns(
        pl.col("open_time") + DAY, volume=pl.Series([tape.minute(n) for n in range(10)])
    )
    lake.append("market.history_1m", official)

    build_day(lake, "BINANCE", START.date(), studies=[])

    whole = table(lake, "market.bars_1m").filter(symbol=ROLLING)[1:]
    assert whole["volume"].to_list() == [tape.minute(n) for n in range(1, 9)]
    assert whole["volume_basis"].unique().to_list() == ["official"]
    assert whole["source"].unique().to_list() == ["stream"]
    assert whole["volume_deviation"].null_count() == whole.height
    assert whole.filter(pl.col("flags") & Flag.VOLUME_UNKNOWN.value > 0).is_empty()


@pytest.mark.parametrize("stride", [7, 30, 90])
def test_ticks_come_to_the_rows_of_the_day_s_build(lake: Lakehouse, stride: int):
    tape, script = Tape(), recorded(Tape())
    lake.append("market.history_1m", tape.history())
    for start in range(-1, LENGTH, stride):
        land(lake, script, start, min(start + stride, LENGTH))
        tick(lake)
    ticked = {name: table(lake, name) for name in ("market.bars_1s", "market.bars_1m")}

    build_day(lake, "BINANCE", START.date(), studies=[])

    for name, frame in ticked.items():
        assert_frame_equal(frame, table(lake, name))


def test_yesterday_s_minutes_that_come_later_are_put_to_use_by_a_tick(lake: Lakehouse):
    tape = Tape()
    land(lake, recorded(tape), -1, LENGTH)
    tick(lake)
    before = table(lake, "market.bars_1m").filter(symbol=ROLLING)["volume"]
    lake.append("market.history_1m", tape.history())

    tick(lake)

    after = table(lake, "market.bars_1m").filter(pl.col("open_time") >= START, symbol=ROLLING)
    assert before.null_count() == before.len()
    assert after["volume"].to_list() == [None, *(tape.minute(n) for n in range(1, 9))]


def test_a_quiet_symbol_is_judged_with_the_days_before(lake: Lakehouse):
    land(lake, recorded(Tape()), -1, LENGTH)
    later = Script(start=START + DAY, writer="writer-2").mark(Mark.OPENED, "s2", 0)
    later.snapshot(0.5, "s2", ROLLING, last_price=1.0, cumulative_volume=9.0, trade=-99)
    for second in range(10, 40, 10):
        later.update(second, "s2", ROLLING, trade=second - 1, cumulative_volume=9.0 + second)
    later.mark(Mark.ALIVE, "s2", 0, 120)
    lake.append("raw.quotes", later.quotes)
    lake.append("raw.coverage", later.coverage)
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None

    build_symbols(lake, "BINANCE", (START + DAY).date(), watermark=seen)

    rows = table(lake, "market.symbols")
    assert rows.select("symbol", "counter_kind").rows() == [(ROLLING, "rolling")]


def test_building_twice_changes_no_row(lake: Lakehouse):
    land(lake, recorded(Tape()), -1, LENGTH)
    build_day(lake, "BINANCE", START.date(), studies=[])
    before = table(lake, "market.symbols"), table(lake, "market.bars_1m")
    seen = current_watermark(lake, "BINANCE")
    assert seen is not None

    build_symbols(lake, "BINANCE", START.date(), watermark=seen)
    build_1m(lake, "BINANCE", WHOLE, watermark=seen)

    assert_frame_equal(before[0], table(lake, "market.symbols"))
    assert_frame_equal(before[1], table(lake, "market.bars_1m"))
