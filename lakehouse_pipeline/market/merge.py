"""The minutes we publish: streamed where we saw all of them, official where we did not.

One rule a minute, from what was streamed and what history has:

==============  =================  =========================================================
seen            history has it     the bar
==============  =================  =========================================================
all of it       either             the streamed one (``stream``), or none: a quiet minute. If
                                   its counter gave no volume, it has the official one's
a part of it    no                 the streamed one, flagged PARTIAL
a part of it    yes                ``mixed``: official prices and volume, our counts and quotes
nothing of it   yes                ``official``
==============  =================  =========================================================

What was observed is never lost by it: the streamed seconds stay in ``bars_1s``, and the deviation
columns keep what the streamed minute was apart from the official one. Whether the two agree is
judged in ``reconcile``; what to fetch is planned in ``repair``.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lakehouse_pipeline.market.bars import Source, State, with_coverage
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.schemas import MINUTE_BARS
from lakehouse_pipeline.market.volume import Basis
from lakehouse_pipeline.market.windows import DAY, MINUTE

KEY = ["exchange", "symbol", "open_time"]
PRICES = ["open", "high", "low", "close"]
_VOLUME_FLAGS = Flag.VOLUME_UNKNOWN | Flag.VOLUME_ESTIMATED
_COUNTS = pl.col("^.*_updates$", "observed_seconds", "flags")


def merge(
    streamed: pl.DataFrame, history: pl.DataFrame, coverage: pl.DataFrame, watermark: datetime
) -> pl.DataFrame:
    """Return one bar a minute and symbol in MINUTE_BARS schema, by symbol and time.

    *streamed* are one-minute bars (BARS, or MINUTE_BARS that were merged before: the result is the
    same), *history* the official ones of the same window, *coverage* as for ``with_coverage``.
    History of minutes that *watermark* has not closed is left for later.
    """
    both = (
        _with_deviations(streamed)
        .join(_official(history, watermark), on=KEY, how="full", coalesce=True)
        .with_columns(_COUNTS.fill_null(0))
        .sort("symbol", "open_time")
    )
    seen = pl.col("source").is_not_null()
    known = pl.col("official_close").is_not_null()
    filled = known & (pl.col("flags") & Flag.PARTIAL.value > 0)
    # A counter that is no sum, or was never shown, leaves a minute that we saw without a volume.
    is_lent = pl.col("volume").is_null() | (pl.col("volume_basis") == Basis.OFFICIAL)
    lent = ~filled & is_lent & pl.col("official_volume").is_not_null()
    volume = filled | lent
    rows = with_coverage(both, coverage, MINUTE).filter(seen | filled)
    return (
        rows.with_columns(_deviations(known & (pl.col("source") == Source.STREAM)))
        .with_columns(
            *(_when(filled, pl.col(f"official_{name}"), name) for name in PRICES),
            _when(volume, pl.col("official_volume"), "volume"),
            _when(volume, _basis(), "volume_basis"),
            _when(filled, pl.col("flags") | Flag.FILLED.value, "flags"),
        )
        .with_columns(
            _when(volume, _volume_flags(), "flags"),
            _when(filled, _source(), "source"),
            pl.col("state").fill_null(_state(watermark)),
        )
        .select(MINUTE_BARS.names())
        .cast(dict(MINUTE_BARS))  # type: ignore[arg-type]  # a schema is a mapping of types
    )


def _official(history: pl.DataFrame, watermark: datetime) -> pl.DataFrame:
    """Return the closed official bars under names of their own, one a minute."""
    return (
        history.filter(pl.col("open_time") + MINUTE <= watermark)
        .sort("fetched_at")
        .unique(KEY, keep="last", maintain_order=True)
        .select(*KEY, pl.col(*PRICES, "volume").name.prefix("official_"))
    )


def _with_deviations(streamed: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in MINUTE_BARS.names() if name not in streamed.columns]
    return streamed.with_columns(pl.lit(None, MINUTE_BARS[name]).alias(name) for name in missing)


def _deviations(comparable: pl.Expr) -> list[pl.Expr]:
    apart = pl.max_horizontal((pl.col(p) - pl.col(f"official_{p}")).abs() for p in PRICES)
    # Both are decimals: what their difference has below 1e-9 is binary noise.
    volume = (pl.col("volume") - pl.col("official_volume")).round(9)
    ours = pl.col("volume_basis") != Basis.OFFICIAL
    return [
        _when(comparable, apart.round(9), "price_deviation"),
        _when(comparable & ours, volume, "volume_deviation"),
    ]


def _basis() -> pl.Expr:
    known = pl.col("official_volume").is_not_null()
    return pl.when(known).then(pl.lit(Basis.OFFICIAL.value)).otherwise(pl.lit(Basis.UNKNOWN.value))


def _volume_flags() -> pl.Expr:
    flags = pl.col("flags") & ~_VOLUME_FLAGS.value
    unknown = pl.col("official_volume").is_null()
    return pl.when(unknown).then(flags | Flag.VOLUME_UNKNOWN.value).otherwise(flags)


def _source() -> pl.Expr:
    source = pl.col("source")
    streamed = pl.when(source == Source.STREAM).then(pl.lit(Source.MIXED.value)).otherwise(source)
    return streamed.fill_null(Source.OFFICIAL.value)


def _state(watermark: datetime) -> pl.Expr:
    day_is_over = pl.col("open_time").dt.truncate("1d") + DAY <= watermark
    final, closed = pl.lit(State.FINAL.value), pl.lit(State.CLOSED.value)
    return pl.when(day_is_over).then(final).otherwise(closed)


def _when(condition: pl.Expr, value: pl.Expr, name: str) -> pl.Expr:
    return pl.when(condition).then(value).otherwise(pl.col(name)).alias(name)
