"""Which kind of counter a symbol has, and what a rolling one is good for.

A session's counter starts from zero at 00:00 UTC and otherwise rises: ``volume.book`` takes its
differences. The volume of the last 24 hours falls whenever old trades leave, so its differences
under-count; with the official minutes of the day before, what left is known and a minute's volume
is exact. Never per second, never from our own estimates: errors would come back every day.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lakehouse_pipeline.market.decimals import lots_per_unit
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import RECEIVED, Kind, canonical, observes_counter
from lakehouse_pipeline.market.schemas import BARS
from lakehouse_pipeline.market.volume import Basis, CounterKind
from lakehouse_pipeline.market.windows import DAY, MINUTE

ENOUGH = 50  # steps before anything is said
_BOUNDARY_SECONDS = 3  # a window that moves by minutes moves within the first seconds of one


def detect_kinds(quotes: pl.DataFrame) -> pl.DataFrame:
    """Return one row a symbol: ``exchange, symbol, counter_kind, counter_evidence``.

    *quotes*: best a day around a UTC midnight; a few busy minutes tell a rolling window. Kind
    ``unknown`` means that too little was seen, or that it fits none.
    """
    at, before = pl.col("received_at"), pl.col("received_at").shift()
    value, former = pl.col("cumulative_volume"), pl.col("cumulative_volume").shift()
    steps = (
        canonical(quotes)
        .filter(observes_counter())
        .sort(RECEIVED)
        .with_columns(
            fell=(value < former).over("symbol", "session_id"),
            moved=(value != former).over("symbol", "session_id"),
            new_minute=(at.dt.truncate("1m") != before.dt.truncate("1m")).over("symbol"),
            new_day=(pl.col("last_time").dt.date() != pl.col("last_time").dt.date().shift()).over(
                "symbol"
            ),
        )
        .filter(pl.col("moved"), pl.col("kind") != Kind.RESTORE)
    )
    fell, new_day = pl.col("fell"), pl.col("new_day")
    at_boundary = fell & pl.col("new_minute") & (at.dt.second() < _BOUNDARY_SECONDS)
    tally = steps.group_by("exchange", "symbol").agg(
        steps=pl.len(),
        falls=(fell & ~new_day).sum(),
        at_boundary=(at_boundary & ~new_day).sum(),
        minutes=pl.col("new_minute").sum(),
        midnights=new_day.sum(),
        resets=(fell & new_day).sum(),
    )
    kind = (
        pl.when(pl.col("steps") < ENOUGH)
        .then(pl.lit(CounterKind.UNKNOWN.value))
        .when(
            pl.col("at_boundary") * 4 > pl.col("minutes"),
            pl.col("at_boundary") > 2,
            pl.col("at_boundary") * 10 >= pl.col("falls") * 9,
        )
        .then(pl.lit(CounterKind.ROLLING_MINUTE.value))
        .when(pl.col("falls") * 20 > pl.col("steps"))
        .then(pl.lit(CounterKind.ROLLING.value))
        .when(
            pl.col("falls") * 100 <= pl.col("steps"),
            (pl.col("midnights") == 0) | (pl.col("resets") > 0),
        )
        .then(pl.lit(CounterKind.SESSION.value))
        .otherwise(pl.lit(CounterKind.UNKNOWN.value))
    )
    evidence = pl.format(
        "{} of {} steps fell, {} of them on one of {} minutes; {} of {} midnights reset it",
        *("falls", "steps", "at_boundary", "minutes", "resets", "midnights"),
    )
    return tally.sort("symbol").select(
        "exchange", "symbol", counter_kind=kind, counter_evidence=evidence
    )


def compensate(
    minutes: pl.DataFrame, history: pl.DataFrame, kinds: Mapping[str, CounterKind]
) -> pl.DataFrame:
    """Return one-minute bars with the volume of rolling counters, where it can be known.

    The counter's difference plus the official volume of the minute that left the window meanwhile
    (*history*, in HISTORY schema, from 24 h and a minute before). A minute not wholly seen, or
    whose minute before has no bar, keeps a null volume: its difference holds more than itself.
    """
    lag = {CounterKind.ROLLING: DAY, CounterKind.ROLLING_MINUTE: DAY + MINUTE}
    lags = pl.DataFrame(
        {
            "symbol": [symbol for symbol, kind in kinds.items() if kind in lag],
            "lag": [lag[kind] for kind in kinds.values() if kind in lag],
        },
        schema={"symbol": pl.String, "lag": pl.Duration("us")},
    )
    left = history.select("symbol", leaving="open_time", outflow="volume")
    whole = (pl.col("flags") & Flag.PARTIAL.value) == 0
    follows = (pl.col("open_time").diff() == MINUTE) & whole.shift()
    start, end = pl.col("counter_start"), pl.col("counter_end")
    lots = lots_per_unit(pl.max_horizontal(start, end))
    volume = (
        (end * lots).round() - (start * lots).round() + (pl.col("outflow") * lots).round()
    ) / lots
    usable = pl.col("lag").is_not_null() & whole & pl.col("follows") & (volume >= 0)
    lacking = Flag.VOLUME_UNKNOWN.value
    return (
        minutes.sort("symbol", "open_time")
        .join(lags, on="symbol", how="left", maintain_order="left")
        .with_columns(follows=follows.over("symbol"), leaving=pl.col("open_time") - pl.col("lag"))
        .join(left, on=["symbol", "leaving"], how="left", maintain_order="left")
        .with_columns(
            pl.when(usable).then(volume).otherwise("volume").alias("volume"),
            pl.when(usable)
            .then(pl.lit(Basis.ROLLED_COMP.value))
            .otherwise("volume_basis")
            .alias("volume_basis"),
            pl.when(usable)
            .then(pl.col("flags") & ~lacking)
            .otherwise("flags")
            .cast(BARS["flags"])
            .alias("flags"),
        )
        .select(minutes.columns)
    )
