"""The feed's studies agree with the project's indicators, which share no code with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lakehouse_pipeline.feedserver import generated_market
from lakehouse_pipeline.feedserver.history import Bar
from lakehouse_pipeline.feedserver.studies import STUDIES
from lakehouse_pipeline.market import indicators
from lakehouse_pipeline.market.stretches import as_one_stretch

BTC = "BINANCE:BTCUSDT"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
FRAME = generated_market([BTC]).bars(BTC, timedelta(minutes=1), NOON - timedelta(minutes=300), NOON)
BARS = [Bar(row["open_time"].timestamp(), *list(row.values())[1:]) for row in FRAME.to_dicts()]


def computed(study: indicators.Study, plot: str) -> list[float | None]:
    bars = FRAME.with_columns(symbol=pl.lit(BTC), flags=pl.lit(0, pl.Int32))
    return indicators.widen(as_one_stretch(bars, pl.DataFrame()), [study])[plot].to_list()


@pytest.mark.parametrize(
    ("key", "inputs", "position", "study", "plot"),
    [
        ("STD;RSI", {}, 0, indicators.rsi(14), "rsi"),
        ("STD;RSI", {"in_0": {"v": 7, "f": True, "t": "integer"}}, 0, indicators.rsi(7), "rsi"),
        ("STD;MACD", {}, 0, indicators.macd(), "histogram"),
        ("STD;MACD", {}, 2, indicators.macd(), "macd"),
        ("STD;MACD", {"in_0": 5, "in_1": 9, "in_3": 4}, 3, indicators.macd(5, 9, 4), "signal"),
    ],
)
def test_a_study_agrees_with_the_indicator(key, inputs, position, study, plot) -> None:
    points = [row[position] for row in STUDIES[key].points(BARS, inputs)]
    expected = computed(study, plot)

    assert [value is None for value in points] == [value is None for value in expected]
    present = [value for value in points if value is not None]
    assert present == pytest.approx([value for value in expected if value is not None], abs=1e-8)


def test_volume_comes_with_its_average() -> None:
    points = STUDIES["Volume"].points(BARS, {"length": 3})

    assert [row[0] for row in points] == FRAME["volume"].to_list()
    assert points[1][1] is None
    assert points[2][1] == pytest.approx(FRAME["volume"].head(3).mean())


def test_a_study_of_nothing_has_no_points() -> None:
    assert isinstance(FRAME, pl.DataFrame)
    assert [study.points([], {}) for study in STUDIES.values()] == [[]] * len(STUDIES)
