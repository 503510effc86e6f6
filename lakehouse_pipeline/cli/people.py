"""Bars as a person reads them in a terminal: what matters, in words, at a glance.

Machine formats hold the tables' own columns instead, and do not come through here.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lakehouse_pipeline.market.bars import State
from lakehouse_pipeline.market.indicators import Study, Unit
from lakehouse_pipeline.market.quality import Flag

from .output import decimals_shown

MOST_PLACES = 10
PRICES = ("open", "high", "low", "close")
# What other columns say: source, fill_kind, the emptiness of an indicator.
TOLD_ELSEWHERE = Flag.FILLED | Flag.PARTIAL | Flag.CARRIED | Flag.WARMING


def to_read(bars: pl.DataFrame, studies: Sequence[Study] = ()) -> pl.DataFrame:
    """Return time, prices, volume, *studies* by their captions, source and notes.

    Indicators have the decimals of what they speak of.
    """
    places = {
        Unit.PRICE: max(2, _places(bars["close"])),
        Unit.PERCENT: 2,
        Unit.VOLUME: _places(bars["volume"]),
    }
    plots = [
        pl.col(column).round(places[study.unit]).alias(caption)
        for study in studies
        for column, caption in zip(study.columns, study.captions, strict=True)
    ]
    fills = [name for name in ("fill_kind",) if name in bars.columns]
    return bars.select(
        "open_time", *PRICES, "volume", *plots, *fills, "source", _notes().alias("notes")
    )


def _places(column: pl.Series) -> int:
    places = decimals_shown(column)
    return MOST_PLACES if places is None else places


def _notes() -> pl.Expr:
    """Return in words what is to be known of a bar before trusting it, null where nothing is."""
    forming = pl.col("state").eq_missing(State.FORMING.value)
    lacks = _has(Flag.PARTIAL) & ~_has(Flag.FILLED) & ~forming
    words = {
        "forming": forming,
        "partial": lacks,
        **{_words(flag): _has(flag) for flag in Flag if flag not in TOLD_ELSEWHERE},
    }
    told = [pl.when(is_so).then(pl.lit(word)) for word, is_so in words.items()]
    notes = pl.concat_str(told, separator=", ", ignore_nulls=True)
    return pl.when(notes != "").then(notes)


def _has(flag: Flag) -> pl.Expr:
    return pl.col("flags") & flag.value > 0


def _words(flag: Flag) -> str:
    assert flag.name is not None
    return flag.name.lower().replace("_", " ")
