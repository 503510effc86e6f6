"""The feed's own indicator values: which are final, and how far ours are from them.

A study on the feed sends the running minute's value again and again, and after a reconnect all of
its chart anew. What it sends is recorded as landed; here is decided which of it a minute keeps.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from . import schemas
from .indicators import COMPUTED, Study
from .quality import Flag
from .windows import MINUTE

TRADINGVIEW = "tradingview"
KEY = ["exchange", "symbol", "open_time", "name", "parameters", "plot"]
LINE = ["session_id", "symbol", "name", "parameters", "plot"]  # one plot of one chart


def final_values(raw: pl.DataFrame, studies: Iterable[Study]) -> pl.DataFrame:
    """Return one value a minute, study and plot of *raw*, in the indicators' schema.

    A value is final once its session has one of a later minute, or if it came after its minute had
    closed: a minute's last value comes with its last trade, before it closes. A value is flagged
    ``SETTLING`` until its chart has as many bars as the study remembers, however long the symbol
    took to trade in so many minutes; *studies* say how many that is, and of a study they
    do not name nothing is known to have settled.
    """
    memory = pl.DataFrame(
        [(study.name, study.label, study.memory) for study in studies],
        schema={"name": pl.String, "parameters": pl.String, "memory": pl.Int64},
        orient="row",
    )
    newest = pl.col("event_time").max().over(LINE)
    # What was recorded before the column was kept landed with all of its chart.
    landed = pl.col("event_time").rank("dense").over(LINE).cast(pl.Int64)
    settled = pl.coalesce("chart_bars", landed) >= pl.col("memory")
    closed = pl.col("received_at") >= pl.col("event_time") + MINUTE
    return (
        raw.join(memory, on=["name", "parameters"], how="left")
        .with_columns(settled=settled.fill_null(value=False))
        .filter(closed | (pl.col("event_time") < newest))
        .rename({"event_time": "open_time"})
        .sort("settled", "received_at", "sequence")
        .unique(KEY, keep="last", maintain_order=True)
        .with_columns(
            source=pl.lit(TRADINGVIEW),
            flags=pl.when("settled").then(0).otherwise(int(Flag.SETTLING)),
        )
        .select(schemas.INDICATORS.names())
        .cast(schemas.INDICATORS)
        .sort("symbol", "open_time", "name", "parameters", "plot")
    )


def deviations(values: pl.DataFrame) -> pl.DataFrame:
    """Return where computed and ingested values both exist and have settled, the worst first.

    ``deviation`` is their difference as a share of the greatest value that the plot had, because
    an oscillator's own value may be near zero.
    """
    ours = _settled(values, COMPUTED).select(*KEY, computed="value")
    theirs = _settled(values, TRADINGVIEW).select(*KEY, ingested="value")
    scale = pl.max_horizontal(pl.col("computed", "ingested").abs()).max()
    scale = scale.over("symbol", "name", "parameters", "plot")
    return (
        ours.join(theirs, on=KEY)
        .with_columns(
            deviation=pl.when(scale > 0)
            .then((pl.col("computed") - pl.col("ingested")).abs() / scale)
            .otherwise(0.0)
        )
        .sort("deviation", "open_time", descending=True)
    )


def unmatched(values: pl.DataFrame) -> pl.DataFrame:
    """Return the settled ingested values that no computed one can be compared with.

    These are of minutes in which ours of the same study has settled, but in another plot or with
    other parameters. A minute in which ours still shows where it began, or has no bar, proves
    nothing.
    """
    ours, theirs = _settled(values, COMPUTED), _settled(values, TRADINGVIEW)
    same_study = theirs.join(ours, on=["symbol", "open_time", "name"], how="semi")
    return same_study.join(ours, on=KEY, how="anti").sort("symbol", "open_time", "name", "plot")


def _settled(values: pl.DataFrame, source: str) -> pl.DataFrame:
    settled = pl.col("flags") & int(Flag.SETTLING) == 0
    return values.filter(settled, pl.col("value").is_finite(), pl.col("source") == source)
