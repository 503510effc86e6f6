"""What a chart shows: the values it was given, in panes or on the price."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import polars as pl
import pytest

from lakehouse_pipeline.build.indicators import studies_named
from lakehouse_pipeline.charts import draw
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.indicators import bollinger, macd, obv, rsi, vwap, widen
from lakehouse_pipeline.market.stretches import as_one_stretch
from lakehouse_pipeline.market.windows import HOUR, MINUTE

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
NO_GAPS = pl.DataFrame(schema=schemas.GAPS)


def wide(studies) -> pl.DataFrame:
    closes = [100.0 + n % 7 for n in range(100)]
    bars = pl.DataFrame(
        {
            "symbol": ["X:A"] * 100,
            "open_time": [START + n * MINUTE for n in range(100)],
            **dict.fromkeys(("open", "high", "low", "close"), closes),
            "volume": [1.0] * 100,
            "flags": [0] * 100,
        },
        schema_overrides={"flags": pl.Int32},
    )
    return widen(as_one_stretch(bars, NO_GAPS), studies)


def traces(page: str) -> list[dict]:
    (data,) = re.findall(r'Plotly\.newPlot\(\s*"[^"]+",\s*(\[.*?\]),\s*\{"', page, re.DOTALL)
    return json.loads(data)


def test_rsi_and_macd_have_panes_and_their_values_are_the_ones_given():
    studies = [rsi(), macd()]
    last = wide(studies).tail(10)

    page = draw(last, NO_GAPS, title="X:A", studies=studies)

    drawn = {trace["name"]: trace for trace in traces(page)}
    assert [*drawn] == ["price", "volume", "rsi", "macd", "macd signal", "macd histogram"]
    assert drawn["rsi"]["yaxis"] == "y3"
    assert {drawn[f"macd{plot}"]["yaxis"] for plot in ("", " signal", " histogram")} == {"y4"}
    # Warm from the left edge on: drawing computes nothing anew.
    assert drawn["rsi"]["y"] == pytest.approx(last["rsi"].to_list())


def test_a_line_that_is_warm_at_once_does_not_cross_what_was_not_seen():
    bars = wide([obv()]).with_columns(stretch=(pl.int_range(pl.len()) >= 40).cast(pl.Int64))

    page = draw(bars, NO_GAPS, title="X:A", studies=[obv()])

    (line,) = [trace for trace in traces(page) if trace["name"] == "obv"]
    assert [n for n, value in enumerate(line["y"]) if value is None] == [40]
    assert line["y"][:40] + line["y"][41:] == pytest.approx(bars["obv"].to_list())


@pytest.mark.parametrize("studies", [[], [vwap(), bollinger()]], ids=["none", "overlays"])
def test_a_chart_needs_no_panes(studies):
    page = draw(wide(studies), NO_GAPS, title="X:A", studies=studies)

    assert all(trace["yaxis"] in ("y", "y2") for trace in traces(page))


def test_a_study_asked_for_twice_has_a_pane_for_each_set_of_parameters():
    studies = studies_named(["rsi", "rsi:5", "sma", "atr"], {})

    page = draw(wide(studies), NO_GAPS, title="X:A", studies=studies)

    drawn = {trace["name"]: trace["yaxis"] for trace in traces(page)[2:]}
    assert drawn == {"rsi": "y3", "rsi:5": "y4", "sma": "y", "atr": "y5"}


def test_the_legend_has_every_line_and_each_pane_its_parameters():
    studies = [rsi(), macd(), vwap()]

    page = draw(wide(studies), NO_GAPS, title="X:A", studies=studies)

    shown = [trace["name"] for trace in traces(page) if trace.get("showlegend", True)]
    assert shown == ["rsi", "macd", "macd signal", "macd histogram", "vwap"]
    assert {'"text":"rsi 14"', '"text":"macd 12 26 9"'} <= set(re.findall(r'"text":"[^"]*"', page))


def test_one_bar_is_a_chart():
    gap = pl.DataFrame({"start": [START - HOUR], "end": [START + HOUR], "cause": ["feed_gap"]})

    page = draw(wide([rsi()]).head(1), gap, title="X:A", studies=[rsi()])

    assert traces(page)[0]["x"] == ["2026-03-02T12:00:00+00:00"]


def test_a_gap_is_shaded_within_the_bars_and_tells_its_cause():
    bars = wide([])
    gaps = pl.DataFrame(
        {
            "start": [START - HOUR, START + 50 * MINUTE, START + 60 * MINUTE, START - HOUR],
            "end": [START + MINUTE, START + 52 * MINUTE, START + 61 * MINUTE, START - MINUTE],
            "cause": ["worker_down", "feed_gap", "quiet_market", "feed_gap"],
        }
    )

    page = draw(bars, gaps, title="X:A")

    drawn = {trace["name"]: trace for trace in traces(page)}
    assert drawn["not seen"]["text"] == [
        "worker_down, 12:00:00 to 12:01:00",
        "feed_gap, 12:50:00 to 12:52:00",
    ]
    assert drawn["quiet"]["text"] == ["quiet_market, 13:00:00 to 13:01:00"]
    assert len(re.findall(r'"type":"rect"', page)) == 3


def test_no_bars_are_an_empty_chart():
    assert "Plotly.newPlot" in draw(wide([]).clear(), NO_GAPS, title="X:A")
