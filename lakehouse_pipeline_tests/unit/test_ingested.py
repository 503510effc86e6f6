"""Which of the feed's values a minute keeps, and how far ours are from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.indicators import sma
from lakehouse_pipeline.market.ingested import deviations, final_values
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.windows import MINUTE

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
STUDY = sma(2)


def raw(*rows: tuple[int, float, float] | tuple[int, float, float, str]) -> pl.DataFrame:
    """Return rows of (minute, seconds after the start when received, value, session)."""
    return pl.DataFrame(
        [
            {
                "exchange": "X",
                "symbol": "X:A",
                "event_time": START + row[0] * MINUTE,
                "received_at": START + timedelta(seconds=row[1]),
                "name": "sma",
                "parameters": STUDY.label,
                "plot": "sma",
                "value": row[2],
                "session_id": row[3] if len(row) > 3 else "s1",
                "writer_id": "w1",
                "sequence": number,
            }
            for number, row in enumerate(rows, 1)
        ],
        schema=schemas.RAW_INDICATORS,
    )


def kept(*rows: tuple[int, float, float] | tuple[int, float, float, str]) -> list[tuple]:
    values = final_values(raw(*rows), [STUDY])
    assert values.schema == schemas.INDICATORS
    minutes = (values["open_time"] - START).dt.total_minutes()
    settled = values["flags"] & int(Flag.SETTLING) == 0
    return list(zip(minutes, values["value"], settled, strict=True))


def test_a_minutes_last_value_is_final_when_the_next_has_begun():
    assert kept((0, 10, 1.0), (0, 59, 1.5), (1, 61, 2.0)) == [(0, 1.5, False)]


def test_a_value_that_came_after_its_minute_is_final():
    assert kept((0, 59, 1.0), (0, 61, 1.5)) == [(0, 1.5, False)]


def test_a_session_that_broke_off_in_a_minute_does_not_decide_it():
    assert kept((0, 50, 1.0), (0, 55, 1.1), (1, 70, 2.0, "s2")) == []


def test_a_settled_value_wins_over_a_later_one_of_a_younger_chart():
    older = ((0, 600, 1.0), (1, 600, 2.0), (2, 600, 3.0))

    assert kept(*older, (2, 700, 3.7, "s2"))[-1] == (2, 3.0, True)


def test_a_thin_symbol_settles_by_its_bars_not_by_the_clock():
    rows = [(7 * n, 60.0 * 7 * n + 5, float(n)) for n in range(9)]

    values = final_values(raw(*rows), [replace(STUDY, memory=4)])

    assert (values["flags"] == 0).to_list() == [False] * 3 + [True] * 5


def test_a_reconnected_session_goes_on_settled_though_it_landed_little_of_its_chart():
    rows = raw((7, 600, 7.0), (8, 600, 8.0), (9, 610, 9.0))

    counted = rows.with_columns(chart_bars=pl.Series([3, 4, 5]))
    values = final_values(counted, [replace(STUDY, memory=4)])

    assert (values["flags"] == 0).to_list() == [False, True, True]


def test_a_study_settings_no_longer_name_has_not_settled():
    values = final_values(raw((0, 600, 1.0), (9, 600, 2.0)), [])

    assert set(values["flags"]) == {int(Flag.SETTLING)}


def test_only_settled_values_that_both_have_are_compared():
    ingested = final_values(raw(*((n, 600, 10.0 * n) for n in range(4))), [STUDY])
    computed = ingested.with_columns(
        source=pl.lit("computed"),
        value=pl.when(pl.col("value") == 20).then(23.0).otherwise("value"),
        flags=pl.lit(0, pl.Int32),
    )

    found = deviations(pl.concat([ingested, computed[:3]]))

    assert [(row["computed"], row["ingested"]) for row in found.to_dicts()] == [
        (23.0, 20.0),
        (10.0, 10.0),
    ]
    assert found["deviation"].to_list() == pytest.approx([3 / 23, 0.0])


def test_nothing_to_compare_is_an_empty_answer():
    assert deviations(pl.DataFrame(schema=schemas.INDICATORS)).is_empty()
