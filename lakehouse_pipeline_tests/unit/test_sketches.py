"""Drawings are well-formed, small, and show what was not seen where it was not seen."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from lakehouse_pipeline import sketches
from lakehouse_pipeline.market.schemas import BARS, GAPS
from lakehouse_pipeline.market.windows import TimeWindow

DAY = TimeWindow.of_day(date(2026, 11, 24))
NAMES = [f"BINANCE:COIN{n}USDT" for n in range(12)]
SVG = "{http://www.w3.org/2000/svg}"


def bars_of(names: list[str]) -> pl.DataFrame:
    rows = [
        (name, DAY.start + n * sketches.STEP, 91_000.5 + n, 91_777.25 + n, 90_000.75, 91_500.0)
        for name in names
        for n in range(48)
    ]
    columns = ["symbol", "open_time", "open", "high", "low", "close"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return pl.concat([pl.DataFrame(schema=BARS), frame], how="diagonal_relaxed")


def gap(symbol: str, start: datetime, end: datetime, cause: str) -> pl.DataFrame:
    row = {"symbol": symbol, "start": start, "end": end, "cause": cause}
    frame = pl.DataFrame([row])
    return pl.concat([pl.DataFrame(schema=GAPS), frame], how="diagonal_relaxed")


def rectangles(svg: str) -> list[dict[str, str]]:
    return [dict(node.attrib) for node in ET.fromstring(svg).iter(f"{SVG}rect")]


def test_candles_of_many_symbols_fit_in_an_event():
    none = pl.DataFrame(schema=GAPS)

    drawn = sketches.candles(bars_of(NAMES), none, DAY)

    words = [node.text for node in ET.fromstring(drawn).iter(f"{SVG}text")]
    assert words[:4] == NAMES[:4]
    assert words[-1] == "and 8 more"
    assert len(sketches.markdown(drawn, "candles")) < 16_000


def test_a_gap_is_drawn_where_it_was_and_a_quiet_time_in_another_color():
    six = DAY.start + timedelta(hours=6)
    gaps = pl.concat(
        [
            gap(NAMES[0], six, six + timedelta(hours=6), "feed_gap"),
            gap(NAMES[0], DAY.start, six, "quiet_market"),
        ]
    )

    seen, blind, quiet = rectangles(sketches.coverage(gaps, NAMES[:1], DAY))

    assert (float(seen["x"]), float(seen["width"])) == (sketches.LEFT, sketches.WIDTH)
    assert float(blind["x"]) == sketches.LEFT + sketches.WIDTH / 4
    assert float(blind["width"]) == sketches.WIDTH / 4
    assert (blind["fill"], quiet["fill"]) == (sketches.BLIND_TO, sketches.QUIET)


def test_a_gap_over_midnight_stays_inside_the_day():
    gaps = gap(
        NAMES[0], DAY.start - timedelta(hours=5), datetime(2027, 1, 1, tzinfo=UTC), "feed_gap"
    )

    _, blind = rectangles(sketches.coverage(gaps, NAMES[:1], DAY))

    assert (float(blind["x"]), float(blind["width"])) == (sketches.LEFT, sketches.WIDTH)


def test_symbols_that_were_blind_come_first():
    gaps = gap(NAMES[11], DAY.start, DAY.start + timedelta(hours=1), "worker_down")

    drawn = ET.fromstring(sketches.coverage(gaps, NAMES, DAY))

    assert next(drawn.iter(f"{SVG}text")).text == NAMES[11]


def test_one_price_all_day_is_drawn():
    flat = bars_of(NAMES[:1]).with_columns(
        pl.lit(5.0).alias(name) for name in ("open", "high", "low", "close")
    )

    drawn = sketches.candles(flat, pl.DataFrame(schema=GAPS), DAY)

    assert len(list(ET.fromstring(drawn).iter(f"{SVG}path"))) == 2


@pytest.mark.parametrize("name", ["A&B", "<script>"])
def test_names_are_escaped(name):
    drawn = sketches.coverage(pl.DataFrame(schema=GAPS), [name], DAY)

    assert next(ET.fromstring(drawn).iter(f"{SVG}text")).text == name


def test_the_image_is_one_that_the_ui_shows():
    image = sketches.markdown("<svg/>", "coverage of OKX")

    assert image.startswith("![coverage of OKX](data:image/svg+xml;base64,")
    assert base64.b64decode(image.partition("base64,")[2][:-1]) == b"<svg/>"


def test_files_are_counted_by_size_before_and_after():
    small, target = 10 << 10, 128 << 20

    drawn = sketches.file_sizes([small] * 40 + [2 << 20], [target, target + 1])

    words = [node.text for node in ET.fromstring(drawn).iter(f"{SVG}text")]
    heights = [float(node["height"]) for node in rectangles(drawn)]
    assert words[:6] == ["40", "1", "before", "1", "1", "after"]
    assert "≤ 128 MiB" in words
    assert heights[:8] == [80, 0, 0, 2, 0, 0, 0, 0]
    assert heights[8:] == [0, 0, 0, 0, 0, 0, 2, 2]


def test_no_file_at_all_is_an_empty_drawing():
    assert {node["height"] for node in rectangles(sketches.file_sizes([], []))} == {"0.0"}
