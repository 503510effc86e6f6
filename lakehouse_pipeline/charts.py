"""Candles with volume, indicator panes and gaps shaded, as one self-contained HTML page.

The page holds its own script and opens without a network. What is drawn comes as frames; reading
them belongs to the caller.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from lakehouse_pipeline.market.causes import UNSEEN
from lakehouse_pipeline.market.indicators import Study
from lakehouse_pipeline.market.stretches import STRETCH

OVERLAYS = {"sma", "ema", "bollinger", "vwap"}  # drawn on the price; the others get a pane
LEVELS = {"rsi": (30, 70)}  # what traders read a study against
UP, DOWN = "#1b9e77", "#d95f02"
NOT_SEEN, QUIET = "rgba(214, 39, 40, 0.18)", "rgba(158, 202, 225, 0.35)"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body style="margin: 0">{figure}</body></html>
"""


def draw(
    bars: pl.DataFrame, gaps: pl.DataFrame, *, title: str, studies: Sequence[Study] = ()
) -> str:
    """Return an HTML page with the candles of *bars* (one symbol) and its *studies*.

    Args:
        bars: in time order, with the columns of *studies*.
        gaps: ledger rows of the symbol; each is shaded and tells its cause on hover.
        title: heads the page.
        studies: overlays go on the price, others into panes of their own.
    """
    panes = [study for study in studies if study.name not in OVERLAYS]
    shares = [0.55, 0.15, *(0.3 / len(panes) for _ in panes)]
    figure = make_subplots(
        rows=2 + len(panes), cols=1, shared_xaxes=True, vertical_spacing=0.02, row_heights=shares
    )
    times = bars["open_time"].to_list()
    _add_candles(figure, bars, times)
    rows = itertools.count(3)
    for study in studies:
        row = 1 if study.name in OVERLAYS else next(rows)
        _add_study(figure, bars, study, row)
    if times:
        _shade(figure, bars, gaps, times[0], times[-1])
    figure.update_layout(
        title={"text": escape(title), "x": 0.01, "y": 0.98, "yanchor": "top"},
        template="plotly_white",
        height=560 + 160 * len(panes),
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.01, "x": 1, "xanchor": "right", "yanchor": "bottom"},
        margin={"l": 80, "r": 20, "t": 70, "b": 50},
    )
    figure.update_xaxes(rangeslider_visible=False)
    figure.update_xaxes(title_text="UTC", row=2 + len(panes), col=1)
    # A price is read to its last digit: 67,150, never 67.15k.
    figure.update_yaxes(title_text="price", row=1, col=1, exponentformat="none")
    figure.update_yaxes(separatethousands=True, row=1, col=1)
    figure.update_yaxes(title_text="volume", row=2, col=1)
    drawn = figure.to_html(include_plotlyjs=True, full_html=False, config={"displaylogo": False})
    return PAGE.format(title=escape(title), figure=drawn)


def _add_candles(figure: go.Figure, bars: pl.DataFrame, times: list[datetime]) -> None:
    columns = {name: bars[name].to_list() for name in ("open", "high", "low", "close")}
    figure.add_trace(
        go.Candlestick(
            x=times,
            **columns,
            name="price",
            showlegend=False,
            increasing_line_color=UP,
            decreasing_line_color=DOWN,
        ),
        row=1,
        col=1,
    )
    rising = (bars["close"] >= bars["open"]).to_list()
    figure.add_trace(
        go.Bar(
            x=times,
            y=bars["volume"].to_list(),
            name="volume",
            showlegend=False,
            marker_color=[UP if up else DOWN for up in rising],
        ),
        row=2,
        col=1,
    )


def _add_study(figure: go.Figure, bars: pl.DataFrame, study: Study, row: int) -> None:
    broken = _broken(bars)
    times = broken["open_time"].to_list()
    for plot, column, caption in zip(study.plots, study.columns, study.captions, strict=True):
        values = broken[column].to_list()
        look: dict[str, Any] = {"name": caption}
        # Null values break the line: an indicator that is not warm is not drawn.
        trace = (
            go.Bar(x=times, y=values, marker_color=_by_sign(values), opacity=0.5, **look)
            if plot == "histogram"
            else go.Scatter(x=times, y=values, mode="lines", connectgaps=False, **look)
        )
        figure.add_trace(trace, row=row, col=1)
    if row > 1:
        parameters = " ".join(f"{value}" for value in study.parameters.values())
        figure.update_yaxes(title_text=f"{study.name} {parameters}".rstrip(), row=row, col=1)
        for level in LEVELS.get(study.name, ()):
            figure.add_hline(level, line_width=1, line_dash="dot", line_color="gray", row=row)


def _broken(bars: pl.DataFrame) -> pl.DataFrame:
    """Return *bars* with an empty one before each stretch: some studies are warm at once."""
    begins = bars.filter(pl.col(STRETCH) != pl.col(STRETCH).shift()).select("open_time")
    return pl.concat([begins, bars], how="diagonal").sort("open_time", maintain_order=True)


def _by_sign(values: Iterable[float | None]) -> list[str]:
    return [DOWN if value is not None and value < 0 else UP for value in values]


def _shade(
    figure: go.Figure, bars: pl.DataFrame, gaps: pl.DataFrame, first: datetime, last: datetime
) -> None:
    """Shade what of *gaps* lies between the *first* and the *last* bar, over all panes."""
    within = gaps.filter(pl.col("start") < last, pl.col("end") > first).with_columns(
        pl.col("start").clip(lower_bound=first), pl.col("end").clip(upper_bound=last)
    )
    lowest: float = bars.select(pl.col("low").min()).item()
    unseen = pl.col("cause").is_in(list(UNSEEN))
    shapes = []
    for name, color, kept in (("not seen", NOT_SEEN, unseen), ("quiet", QUIET, ~unseen)):
        spans = within.filter(kept).select("start", "end", "cause").rows()
        if spans:
            shapes += [
                {"type": "rect", "xref": "x", "yref": "paper", "layer": "below", "line_width": 0}
                | {"x0": start, "x1": end, "y0": 0, "y1": 1, "fillcolor": color}
                for start, end, _ in spans
            ]
            figure.add_trace(_causes(spans, name, color, lowest), row=1, col=1)
    figure.update_layout(shapes=[*figure.layout.shapes, *shapes])


def _causes(
    spans: Iterable[tuple[datetime, datetime, str]], name: str, color: str, at: float
) -> go.Scatter:
    """What hover says in the middle of each span, and the legend of its color."""
    return go.Scatter(
        x=[start + (end - start) / 2 for start, end, _ in spans],
        y=[at for _ in spans],
        text=[f"{cause}, {start:%H:%M:%S} to {end:%H:%M:%S}" for start, end, cause in spans],
        name=name,
        mode="markers",
        marker={"symbol": "square", "size": 9, "color": color},
        hovertemplate="%{text}",
    )
