"""What each symbol is on a day: precision, currency, type, update mode, and its counter's kind.

Facts come from what the feed says with a symbol's first snapshot (``described`` marks in coverage)
and from its updates; the counter's kind is told in ``counters``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import polars as pl

from lakehouse_pipeline.market.arrays import text_changes
from lakehouse_pipeline.market.counters import VERDICTS
from lakehouse_pipeline.market.coverage import Mark, runs
from lakehouse_pipeline.market.quotes import RECEIVED
from lakehouse_pipeline.market.schemas import SYMBOLS, UTC_TIME
from lakehouse_pipeline.market.windows import TimeWindow, intersect

_FACTS = ["description", "currency", "type", "pricescale", "minmov", "update_mode"]
_TEXTS = {"description": "description", "currency": "currency_code", "type": "type"}
_NUMBERS = {"pricescale": "pricescale", "minmov": "minmov"}
_LARGEST = 10**15


def describe_symbols(
    quotes: pl.DataFrame,
    coverage: pl.DataFrame,
    verdicts: pl.DataFrame,
    day: TimeWindow,
    watermark: datetime,
) -> pl.DataFrame:
    """Return what every symbol seen on *day* was, in SYMBOLS schema, by symbol and time.

    One row for each stretch of the day in which nothing changed, the last one open until
    *watermark* has closed the day. *quotes* (symbol, times, identity and update mode) and
    *coverage* may reach back before the day: what was said then holds on. *verdicts* are
    ``counters.detect_kinds``'s, one a symbol.
    """
    begun = _begun(quotes, coverage, day)
    held = (
        pl.concat([_descriptions(coverage), _modes(quotes)], how="diagonal")
        .filter(pl.col("at") < day.end)
        .sort("symbol", "at", maintain_order=True)
        # What the feed tells a moment after its first data was true with it.
        .with_columns(pl.col(_FACTS).forward_fill().backward_fill().over("symbol"))
        .join(begun, on="symbol")
        .with_columns(valid_from=pl.max_horizontal("at", "begun"))
        .unique(["symbol", "valid_from"], keep="last", maintain_order=True)
    )
    # A symbol of which nothing was said is known all the same.
    silent = begun.join(held, on="symbol", how="anti").rename({"begun": "valid_from"})
    facts = pl.struct(_FACTS)
    news = (facts != facts.shift()).over("symbol").fill_null(value=True)
    last = pl.lit(day.end if watermark >= day.end else None, UTC_TIME)
    return (
        pl.concat([held.filter(news), silent], how="diagonal")
        .sort("symbol", "valid_from")
        .with_columns(valid_to=pl.col("valid_from").shift(-1).over("symbol").fill_null(last))
        .join(verdicts.select(VERDICTS.names()).drop("exchange"), on="symbol", how="left")
        .with_columns(
            exchange=pl.col("symbol").str.split(":").list.first(),
            counter_kind=pl.col("counter_kind").fill_null("unknown"),
            counter_evidence=pl.col("counter_evidence").fill_null("no counter was shown"),
            volume_basis=pl.col("volume_basis").fill_null("counter_delta"),
        )
        .select(SYMBOLS.names())
        .cast(dict(SYMBOLS))  # type: ignore[arg-type]  # a schema is a mapping of types
        .sort("symbol", "valid_from")
    )


def _begun(quotes: pl.DataFrame, coverage: pl.DataFrame, day: TimeWindow) -> pl.DataFrame:
    """Return from when on each symbol was seen on *day*."""
    received = pl.col("received_at")
    first = (
        quotes.select("symbol", "received_at")
        .filter(received >= day.start, received < day.end)
        .group_by("symbol")
        .agg(begun=received.min())
    )
    seen = [
        (symbol, windows[0].start)
        for symbol, found in runs(coverage).items()
        if (windows := intersect(found, [day]))
    ]
    both = [first, pl.DataFrame(seen, schema=first.schema, orient="row")]
    return pl.concat(both).group_by("symbol").agg(pl.col("begun").min()).sort("symbol")


def _modes(quotes: pl.DataFrame) -> pl.DataFrame:
    """Return when each symbol's update mode became another."""
    mode = pl.col("update_mode")
    told = quotes.select(*RECEIVED, mode)
    if told["update_mode"].has_nulls():
        told = told.drop_nulls("update_mode")
    first = (
        _runs(told)
        .group_by("symbol")
        .agg(mode.first(), at=pl.col("at").min(), varies=mode.n_unique() > 1)
    )
    # Whose mode was always the same, as nearly everyone's, need not be put in order.
    varying = told.filter(pl.col("symbol").is_in(first.filter("varies")["symbol"].to_list()))
    changed = (mode != mode.shift()).over("symbol").fill_null(value=True)
    return pl.concat(
        [
            first.filter(~pl.col("varies")).drop("varies"),
            varying.sort(RECEIVED).filter(changed).select("symbol", mode, at="received_at"),
        ],
        how="diagonal",
    )


def _runs(told: pl.DataFrame) -> pl.DataFrame:
    """Return symbol, mode and first receipt of each run of rows that have both in common.

    In sealed order there are hardly more runs than symbols, and nothing has to be hashed.
    """
    if told.is_empty():
        return told.select("symbol", "update_mode", at="received_at")
    edges = np.union1d(text_changes(told["symbol"]), text_changes(told["update_mode"]))
    received = told["received_at"].to_physical().to_numpy()
    at = pl.Series("at", np.minimum.reduceat(received, edges)).cast(UTC_TIME)
    return told.select("symbol", "update_mode")[edges].with_columns(at)


def _descriptions(coverage: pl.DataFrame) -> pl.DataFrame:
    marks = coverage.filter(pl.col("kind") == Mark.DESCRIBED).sort(
        "symbol", "start", "writer_id", "sequence"
    )
    schema = {"symbol": pl.String(), "at": UTC_TIME, **{name: SYMBOLS[name] for name in _FACTS}}
    return pl.DataFrame(list(_told(marks)), schema=schema, orient="row")


def _told(marks: pl.DataFrame) -> Iterator[tuple[object, ...]]:
    for symbol, at, detail in marks.select("symbol", "start", "detail").iter_rows():
        said = json.loads(detail)
        texts = (_text(said.get(key)) for key in _TEXTS.values())
        numbers = (_number(said.get(key)) for key in _NUMBERS.values())
        yield (symbol, at, *texts, *numbers, None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    """Return a whole number that can be a scale; what the feed sent is not ours to trust."""
    fits = isinstance(value, int | float) and 0 < value < _LARGEST and value == int(value)
    return int(value) if fits and isinstance(value, int | float) else None
