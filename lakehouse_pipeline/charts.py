"""Candles with volume, indicator panes and gaps shaded, as one self-contained HTML page.

The page holds its own script and opens without a network. What is drawn comes as frames; reading
them belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from lakehouse_pipeline.market.indicators import Study

OVERLAYS = {"sma", "ema", "bollinger", "vwap"}  # drawn on the price; the others get a pane
UP, DOWN, MISSED = "#1b9e77", "#d95f02", "rgba(120, 120, 120, 0.25)"


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
    for study in studies:
        row = 3 + panes.index(study) if study in panes else 1
        _add_study(figure, bars, times, study, row)
    _shade(figure, gaps.select("start", "end", "cause").iter_rows())
    figure.update_layout(
        title=title,
        template="plotly_white",
        height=560 + 160 * len(panes),
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "x": 1, "xanchor": "right"},
        margin={"l": 60, "r": 20, "t": 70, "b": 30},
    )
    figure.update_xaxes(rangeslider_visible=False)
    figure.update_yaxes(title_text="price", row=1, col=1)
    figure.update_yaxes(title_text="volume", row=2, col=1)
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page


def _add_candles(figure: go.Figure, bars: pl.DataFrame, times: list[datetime]) -> None:
    columns = {name: bars[name].to_list() for name in ("open", "high", "low", "close")}
    figure.add_trace(
        go.Candlestick(
            x=times,
            **columns,
            name="price",
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
            marker_color=[UP if up else DOWN for up in rising],
        ),
        row=2,
        col=1,
    )


def _add_study(
    figure: go.Figure, bars: pl.DataFrame, times: list[datetime], study: Study, row: int
) -> None:
    for plot, column in zip(study.plots, study.columns, strict=True):
        values = bars[column].to_list()
        name = column if plot == study.name else f"{study.name} {column}"
        # Null values break the line: an indicator that is not warm is not drawn.
        trace = (
            go.Bar(x=times, y=values, name=name)
            if plot == "histogram"
            else go.Scatter(x=times, y=values, name=name, mode="lines", connectgaps=False)
        )
        figure.add_trace(trace, row=row, col=1)
    if row > 1:
        figure.update_yaxes(title_text=f"{study.name}{study.suffix}", row=row, col=1)


def _shade(figure: go.Figure, gaps: Iterable[tuple[datetime, datetime, str]]) -> None:
    for start, end, cause in gaps:
        figure.add_vrect(
            x0=start,
            x1=end,
            fillcolor=MISSED,
            line_width=0,
            layer="below",
            annotation_text=cause,
            annotation_position="top left",
            annotation_font_size=9,
            row=1,
            col=1,
        )
