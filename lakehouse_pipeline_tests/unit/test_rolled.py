"""A bar of a longer step says what it holds of its whole interval, and whether that has ended."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from lakehouse_pipeline.market.bars import build_bars
from lakehouse_pipeline.market.merge import merge
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.rolled import judged
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE
from lakehouse_pipeline_tests.scripted import START, SYMBOL, Script, window

FIVE = 5 * MINUTE
HOLES = Flag.PARTIAL | Flag.FILLED


def script() -> Script:
    """Seen from second 30 to 605, traded in each minute."""
    script = Script().session("s1", alive=(30, 605))
    script.snapshot(30, last_price=100.0, cumulative_volume=50.0, trade=20)
    for minute in range(10):
        script.trade(60 * minute + 40, 101.0, 51.0 + minute)
    return script


def minutes(script: Script, closed: datetime, *official: int) -> pl.DataFrame:
    history = [
        ("BINANCE", SYMBOL, START + n * MINUTE, 100.0, 110.0, 90.0, 105.0, 7.0, START)
        for n in official
    ]
    span = window(-600, 86_400)
    streamed = build_bars(script.quotes, script.coverage, span, closed, step=MINUTE)
    frame = pl.DataFrame(history, schema=HISTORY, orient="row")
    return merge(streamed, frame, script.coverage, closed)


def fives(script: Script, closed: datetime, *official: int, step=FIVE) -> list[dict]:
    stored = minutes(script, closed, *official)
    rolled = roll_up(stored, step)
    return judged(rolled, stored, script.coverage, step=step, closed=closed).to_dicts()


def test_an_interval_that_has_not_ended_is_forming():
    closed, forming = fives(script(), START + 7 * MINUTE, 0)

    assert closed["state"] == "closed"
    assert forming["state"] == "forming"
    assert fives(script(), START + 10 * MINUTE, 0)[1]["state"] == "closed"


def test_a_day_is_forming_until_it_is_over_and_then_final():
    assert fives(script(), START + 9 * MINUTE, step=DAY)[0]["state"] == "forming"
    assert fives(script(), START + DAY, step=DAY)[0]["state"] == "final"
    # All its minutes are final, and the second day is still to come.
    assert fives(script(), START + DAY, step=7 * DAY)[0]["state"] == "forming"


def test_volume_that_is_official_and_counted_has_a_mixed_basis():
    mixed, counted = fives(script(), START + HOUR, 0)
    (official,) = fives(script(), START + HOUR, -3, -2, -1)[:1]

    assert (mixed["source"], mixed["volume_basis"]) == ("mixed", "mixed")
    assert (counted["source"], counted["volume_basis"]) == ("stream", "counter_delta")
    assert (official["source"], official["volume_basis"]) == ("official", "official")


def test_a_roll_up_of_roll_ups_has_the_basis_of_all():
    stored = minutes(script(), START + HOUR, -1, 0)

    twice, once = roll_up(roll_up(stored, FIVE), HOUR), roll_up(stored, HOUR)

    assert twice["volume_basis"].to_list() == once["volume_basis"].to_list()


def test_an_interval_of_which_minutes_are_missing_is_partial_and_not_filled():
    # Of the five minutes before the start, the last two have official bars.
    lacking, filled, seen = fives(script(), START + HOUR, -2, -1, 0)

    assert lacking["flags"] & HOLES == Flag.PARTIAL
    assert lacking["covered_seconds"] == 0
    assert filled["flags"] & HOLES == HOLES
    assert filled["covered_seconds"] == 270
    assert seen["flags"] & HOLES == 0
    assert seen["covered_seconds"] == 300


@pytest.mark.parametrize("official", [(-5, -4, -3, -2, -1), (-5, -4, -3, -2)])
def test_an_interval_of_official_minutes_is_filled_if_none_is_missing(official):
    (bar, *_) = fives(script(), START + HOUR, *official)

    assert bool(bar["flags"] & Flag.FILLED) == (len(official) == 5)


def test_what_is_still_to_come_of_a_forming_bar_is_not_missing():
    _, forming = fives(script(), START + 7 * MINUTE, 0)
    (lacking,) = fives(script(), START + 3 * MINUTE)

    assert forming["covered_seconds"] == 300  # as far as was seen, which is further than is built
    assert lacking["state"] == "forming"
    assert lacking["flags"] & HOLES == Flag.PARTIAL  # its first half minute


def test_other_columns_and_the_order_stay():
    stored = minutes(script(), START + HOUR, 0)
    rolled = roll_up(stored, FIVE).with_columns(rsi=pl.lit(50.0))

    found = judged(rolled, stored, script().coverage, step=FIVE, closed=START + HOUR)

    assert found.columns == rolled.columns
    assert found.schema == rolled.schema
    assert found["open_time"].to_list() == rolled["open_time"].to_list()
