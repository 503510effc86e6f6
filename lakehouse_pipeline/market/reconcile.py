"""The loss budget: what was seen, filled and lost, and how far we agree with the vendor.

One row for each symbol and UTC day, and one for each gap of it. The feed sends about one snapshot
a second, so a streamed minute need not show the official extremes, nor its last trade; what it
must not do is show prices that were never traded, or drift from the official volume. Those are
the statements of ``Tolerance``; whether a check fails on them belongs to ``defs``.

What the vendor says is not taken on trust either: a gap is not filled if the bars in it hold less
than the counter missed, and trades of ours in a minute in which the vendor has none are listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import polars as pl

from lakehouse_pipeline.market.bars import Source
from lakehouse_pipeline.market.coverage import covered_windows
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.repair import (
    Reason,
    Status,
    answered_minutes,
    gap_minutes,
    judge,
)
from lakehouse_pipeline.market.schemas import RECONCILIATION
from lakehouse_pipeline.market.volume import Basis
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow, intersect

WORST = 5  # minutes named in a row
KEY = ["symbol", "open_time"]


class Agreement(StrEnum):
    """How a symbol's streamed day compares with the official one."""

    UNCHECKED = "unchecked"  # no minute was both wholly seen and fetched
    AGREES = "agrees"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far snapshots may be from trades, as fractions of the official value."""

    price: float = 0.002  # of a minute's close; of a high above or a low below the official one
    volume: float = 0.01  # of the volume of all minutes compared
    # Of what a gap missed, or of its official minutes if they are more: trades at its edges reach
    # us up to a few seconds after the vendor has booked them.
    gap_volume: float = 0.05


def reconcile(
    bars: pl.DataFrame,
    history: pl.DataFrame,
    gaps: pl.DataFrame,
    fetches: pl.DataFrame,
    coverage: pl.DataFrame,
    day: TimeWindow,
    watermark: datetime,
    *,
    reach: timedelta,
    tolerance: Tolerance = Tolerance(),  # frozen
) -> pl.DataFrame:
    """Return the RECONCILIATION rows of *day* as far as *watermark* lets it be judged.

    *bars* (MINUTE_BARS), *history* and *gaps* are those of the day; *fetches* all that may speak
    of it; *coverage* as for ``bars.with_coverage``.
    """
    judged = judge(gaps, history, fetches, watermark, reach=reach)
    repaired = _corrected(_with_volumes(judged, bars, history), tolerance)
    compared = pl.concat(
        [
            _compared(bars, history, watermark, tolerance),
            _ours_alone(bars, history, fetches, day, tolerance),
        ],
        how="diagonal",
    )
    budget = _observed(coverage, day, watermark)
    lost = repaired.group_by("symbol").agg(
        pl.col("seconds_filled", "seconds_lost").sum().round(6),
        *(_known_sum(name) for name in ("missed_volume", "filled_volume")),
    )
    days = (
        budget.join(lost, on="symbol", how="full", coalesce=True)
        .join(_agreement(compared, tolerance), on="symbol", how="left")
        .with_columns(
            pl.col("seconds_observed", "seconds_filled", "seconds_lost").fill_null(0.0),
            pl.col("minutes_compared", "close_mismatches", "minutes_unseen").fill_null(0),
            pl.col("status").fill_null(Agreement.UNCHECKED.value),
            exchange=pl.col("symbol").str.split(":").list.first(),
            scope=pl.lit("day"),
            start=pl.lit(day.start),
            end=pl.lit(day.end),
        )
    )
    return pl.concat([_conformed(days), _conformed(repaired)]).sort(
        "symbol", "scope", "start", "gap_id"
    )


def _observed(coverage: pl.DataFrame, day: TimeWindow, watermark: datetime) -> pl.DataFrame:
    """Return the seconds of *day* in which each symbol was seen, those never seen left out."""
    known = [TimeWindow(day.start, min(day.end, watermark))] if day.start < watermark else []
    seen = {
        symbol: sum((w.length for w in intersect(windows, known)), timedelta(0))
        for symbol, windows in covered_windows(coverage).items()
    }
    rows = [(symbol, length.total_seconds()) for symbol, length in seen.items() if length]
    schema = {"symbol": pl.String(), "seconds_observed": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _with_volumes(gaps: pl.DataFrame, bars: pl.DataFrame, history: pl.DataFrame) -> pl.DataFrame:
    """Return *gaps* with the volume that official bars put into them, and those bars' own.

    What an official minute has beyond the streamed part of it is missing volume; gaps that share
    a minute share it by their seconds.
    """
    rows = gaps.with_row_index("gap")
    filled = (
        pl.when(pl.col("source") == Source.OFFICIAL)
        .then("volume")
        .when(pl.col("source") == Source.MIXED)
        .then(-pl.col("volume_deviation"))
    )
    share = pl.col("seconds") / pl.col("seconds").sum().over(KEY)
    official = history.unique(KEY, keep="last", maintain_order=True)
    volumes = (
        gap_minutes(rows)
        .join(bars.select(*KEY, filled=filled), on=KEY, how="left")
        .join(official.select(*KEY, official="volume"), on=KEY, how="left")
        .with_columns(filled=pl.col("filled") * share)
        .group_by("gap")
        .agg(
            _known_sum("filled").round(9).alias("filled_volume"),
            _known_sum("official").alias("official_volume"),
        )
    )
    return (
        rows.join(volumes, on="gap", how="left", maintain_order="left")
        .with_columns(
            volume_residual=(pl.col("filled_volume") - pl.col("missed_volume")).round(9),
            scope=pl.lit("gap"),
        )
        .drop("gap")
    )


def _corrected(gaps: pl.DataFrame, tolerance: Tolerance) -> pl.DataFrame:
    """Return *gaps* as judged, but for those that hold less volume than the counter missed.

    Their minutes without an official bar were not silent after all, and are lost. ``worst``
    names the volumes of a gap whose residual, in either direction, is beyond tolerance.
    """
    allowed = tolerance.gap_volume * pl.max_horizontal("missed_volume", "official_volume")
    residual = pl.col("volume_residual")
    is_over = pl.col("status") != Status.OPEN  # an open one may yet be filled
    is_short = is_over & (residual < -allowed).fill_null(value=False)
    is_refuted = is_short & (pl.col("status") == Status.FILLED)
    silent = pl.when(is_short).then("seconds_silent").otherwise(0.0)
    return gaps.with_columns(
        status=pl.when(is_refuted).then(pl.lit(Status.PARTLY_FILLED.value)).otherwise("status"),
        reason=pl.when(is_refuted).then(pl.lit(Reason.NO_DATA.value)).otherwise("reason"),
        seconds_filled=(pl.col("seconds_filled") - silent).round(6),
        seconds_lost=(pl.col("seconds_lost") + silent).round(6),
        worst=pl.when(is_over & (residual.abs() > allowed)).then(
            pl.format("volume {} for {}", "filled_volume", "missed_volume")
        ),
    )


def _compared(
    bars: pl.DataFrame, history: pl.DataFrame, watermark: datetime, tolerance: Tolerance
) -> pl.DataFrame:
    """Return the official minutes that were wholly seen, with how far ours are apart.

    One without a bar of ours was seen too, or it would have been filled: its trades came in the
    same snapshot as later ones, so its volume is in a later bar and its prices in none.
    """
    official = history.filter(pl.col("open_time") + MINUTE <= watermark).select(
        *KEY, pl.col("high", "low", "close", "volume").name.prefix("o_")
    )
    is_absent = pl.col("source").is_null()
    is_whole = (pl.col("source") == Source.STREAM) & (pl.col("flags") & Flag.PARTIAL.value == 0)
    bound = tolerance.price * pl.col("o_close")
    # An official volume agrees with itself: only what our counter says is compared.
    ours = pl.when(pl.col("volume_basis").ne_missing(Basis.OFFICIAL.value)).then("volume")
    apart = {
        f"{name}_off": (pl.col(name) - pl.col(f"o_{name}")).round(9)
        for name in ("close", "high", "low", "volume")
    }
    return (
        official.unique(KEY, keep="last", maintain_order=True)
        .join(bars, on=KEY, how="left")
        .filter(is_absent | is_whole)
        .with_columns(pl.when(is_absent).then(0.0).otherwise(ours).alias("volume"))
        .with_columns(**apart)
        .with_columns(
            beyond=(pl.col("close_off").abs() > bound)
            | (pl.col("high_off") > bound)
            | (-pl.col("low_off") > bound)
        )
    )


def _ours_alone(
    bars: pl.DataFrame,
    history: pl.DataFrame,
    fetches: pl.DataFrame,
    day: TimeWindow,
    tolerance: Tolerance,
) -> pl.DataFrame:
    """Return the minutes in which we saw trades and the vendor, having answered, has no bar.

    The last trades of a minute may reach us in the next one: prices of ours that are within the
    official minute before are no disagreement, and their volume is what that minute lacks. Of the
    day's first minute the one before is not known here, so it is left out.
    """
    traded = pl.sum_horizontal("price_updates", "volume_updates", "time_updates") > 0
    ours = bars.filter(
        pl.col("source") == Source.STREAM, pl.col("open_time") > day.start, traded
    ).join(history, on=KEY, how="anti")
    before = history.unique(KEY, keep="last", maintain_order=True).select(
        "symbol", pl.col("open_time") + MINUTE, low_before="low", high_before="high"
    )
    is_late = (pl.col("high") <= pl.col("high_before") * (1 + tolerance.price)) & (
        pl.col("low") >= pl.col("low_before") * (1 - tolerance.price)
    )
    counted = pl.when(pl.col("volume_basis").ne_missing(Basis.OFFICIAL.value)).then("volume")
    return (
        answered_minutes(ours, fetches)
        .join(before, on=KEY, how="left")
        .with_columns(volume_off=counted, beyond=~is_late.fill_null(value=False))
        .with_columns(o_volume=pl.lit(0.0), is_ours_alone=pl.lit(value=True))
        .select(*KEY, "close", "volume", "volume_off", "o_volume", "beyond", "is_ours_alone")
    )


def _agreement(compared: pl.DataFrame, tolerance: Tolerance) -> pl.DataFrame:
    """Return for each symbol the figures of its compared minutes and the verdict."""
    residual = pl.col("volume_off").sum().round(9)
    official = pl.col("o_volume").filter(pl.col("volume_off").is_not_null()).sum()
    agrees = ~pl.col("beyond").any() & (residual.abs() <= tolerance.volume * official)
    weight = (pl.col("close_off") / pl.col("o_close")).abs()
    is_ours_alone = pl.col("is_ours_alone").fill_null(value=False)
    words = pl.format(
        "{} close {} for {}, volume {} for {}",
        pl.col("open_time").dt.strftime("%H:%M"),
        "close",
        pl.col("o_close").cast(pl.String).fill_null("none"),
        *(pl.col(name).cast(pl.String).fill_null("unknown") for name in ("volume", "o_volume")),
    )
    differing = ((pl.col("close_off") != 0) | pl.col("beyond")).fill_null(value=False)
    named = (
        words.filter(differing)
        # A minute without an official close is the worst there is, the most volume first.
        .sort_by(
            *(each.filter(differing) for each in (weight, pl.col("volume_off").abs())),
            descending=True,
            nulls_last=[False, True],
            maintain_order=True,
        )
        .head(WORST)
        .str.join("; ")
    )
    return compared.group_by("symbol").agg(
        minutes_compared=pl.col("close_off").count(),
        minutes_unseen=(pl.col("close_off").is_null() & ~is_ours_alone).sum(),
        close_mismatches=(pl.col("close_off") != 0).sum(),
        max_high_deviation=pl.col("high_off").abs().max(),
        max_low_deviation=pl.col("low_off").abs().max(),
        volume_residual=pl.when(pl.col("volume_off").count() > 0).then(residual),
        worst=pl.when(differing.any()).then(named),
        status=pl.when((pl.col("close_off").count() == 0) & ~is_ours_alone.any())
        .then(pl.lit(Agreement.UNCHECKED.value))
        .when(agrees)
        .then(pl.lit(Agreement.AGREES.value))
        .otherwise(pl.lit(Agreement.DIFFERS.value)),
    )


def _known_sum(name: str) -> pl.Expr:
    """Sum what is known; null if nothing is."""
    values = pl.col(name)
    return pl.when(values.count() > 0).then(values.sum().round(9)).alias(name)


def _conformed(rows: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in RECONCILIATION if name not in rows.columns]
    return (
        rows.with_columns(pl.lit(None, RECONCILIATION[name]).alias(name) for name in missing)
        .select(RECONCILIATION.names())
        .cast(dict(RECONCILIATION))  # type: ignore[arg-type]  # a schema is a mapping of types
    )
