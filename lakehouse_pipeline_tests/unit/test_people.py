"""What a person is shown of bars: few columns, the decimals of what they speak of, and words."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from lakehouse_pipeline.build.indicators import studies_named
from lakehouse_pipeline.cli.people import to_read
from lakehouse_pipeline.market.indicators import bollinger, macd, obv, rsi, widen
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.schemas import GAPS, MINUTE_BARS
from lakehouse_pipeline.market.stretches import as_one_stretch
from lakehouse_pipeline.market.windows import MINUTE

START = datetime(2026, 3, 2, 12, tzinfo=UTC)


def bars(tick: float = 0.1, *, flags: int = 0, state: str = "closed") -> pl.DataFrame:
    closes = [round((1000 + n * n // 10) * tick, 8) for n in range(60)]
    known = {
        "exchange": "X", "symbol": "X:A", "volume": 1.25, "flags": flags, "state": state,
        "source": "stream",
    }  # fmt: skip
    frame = pl.DataFrame(
        {
            "open_time": [START + n * MINUTE for n in range(60)],
            **dict.fromkeys(("open", "high", "low", "close"), closes),
        }
    )
    others = [name for name in MINUTE_BARS.names() if name not in frame.columns]
    return (
        frame.with_columns(pl.lit(known.get(name)).alias(name) for name in others)
        .select(MINUTE_BARS.names())
        .cast(dict(MINUTE_BARS))
    )


def wide(studies, tick: float = 0.1) -> pl.DataFrame:
    return widen(as_one_stretch(bars(tick), GAPS.to_frame()), studies)


@pytest.mark.parametrize(("tick", "places"), [(1.0, 2), (0.01, 2), (0.00001, 5)])
def test_an_indicator_has_the_decimals_of_what_it_speaks_of(tick: float, places: int):
    studies = [rsi(), macd(), obv()]

    last = to_read(wide(studies, tick), studies).row(-1, named=True)

    assert last["rsi"] == round(last["rsi"], 2)
    assert last["macd signal"] == round(last["macd signal"], places) != 0
    assert last["obv"] == round(last["obv"], 2)


def test_plots_are_named_after_their_study_and_stand_beside_the_price():
    studies = [bollinger(), *studies_named(["rsi", "rsi:7"], {})]

    shown = to_read(wide(studies), studies)

    assert shown.columns == [
        *("open_time", "open", "high", "low", "close", "volume"),
        *("bollinger middle", "bollinger upper", "bollinger lower", "rsi", "rsi:7"),
        *("source", "notes"),
    ]


@pytest.mark.parametrize(
    ("flags", "state", "notes"),
    [
        (0, "closed", None),
        (Flag.PARTIAL, "closed", "partial"),
        (Flag.PARTIAL | Flag.FILLED, "final", None),  # the source says so
        (Flag.PARTIAL, "forming", "forming"),
        (Flag.LATE | Flag.VOLUME_UNKNOWN, "closed", "late, volume unknown"),
        (Flag.WARMING, "closed", None),  # its value is empty
    ],
)
def test_what_to_know_of_a_bar_is_said_in_words(flags: int, state: str, notes: str | None):
    assert to_read(bars(flags=int(flags), state=state))["notes"].unique().to_list() == [notes]


def test_why_an_interval_is_empty_is_shown_where_it_is_told():
    dense = bars().with_columns(fill_kind=pl.lit("quiet"))

    assert "fill_kind" in to_read(dense).columns
