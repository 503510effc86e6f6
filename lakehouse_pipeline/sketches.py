"""Small drawings of a partition, as SVG of a few kilobytes for the metadata of an event.

Dagster's UI shows markdown images whose address is a ``data:`` URI, and drops inline SVG and HTML
(seen with 1.13 in a browser). Every event is kept for long, so a drawing shows few symbols and half
hours, never every bar. Pages to look into belong to ``charts``.
"""

from __future__ import annotations

from base64 import b64encode
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from xml.sax.saxutils import escape

import polars as pl

from lakehouse_pipeline.market.causes import BLIND
from lakehouse_pipeline.market.windows import TimeWindow

STEP = timedelta(minutes=30)  # one candle
SYMBOLS_SHOWN = 4
LEFT, WIDTH, PRICES, LINE = 132, 480, 52, 20  # pixels: labels, the day, a row of candles, of text
FILES, COLUMN = 80, 60  # pixels: of the most files, of a class of sizes
SIZES = (
    *((f"≤ {kib} KiB", kib << 10) for kib in (16, 256)),
    *((f"≤ {mib} MiB", mib << 20) for mib in (1, 4, 16, 64, 128)),
)  # the last is what compaction aims at
UP, DOWN, BLIND_TO, QUIET, INK = "#1b9e77", "#d95f02", "#d62728", "#9ecae1", "#808080"


def candles(bars: pl.DataFrame, gaps: pl.DataFrame, day: TimeWindow) -> str:
    """Return an SVG of the first symbols' candles, behind them what was not seen.

    Args:
        bars: ``STEP`` bars of any number of symbols.
        gaps: rows of the ledger.
        day: what the width stands for.
    """
    shown = _first(bars["symbol"])
    parts: list[str] = []
    for row, symbol in enumerate(shown):
        top = row * PRICES
        mine = bars.filter(pl.col("symbol") == symbol)
        parts += _spans(gaps.filter(pl.col("symbol") == symbol), day, top, PRICES - 6)
        parts += _label(symbol, top + PRICES // 2)
        parts += _candle_paths(mine, day, top)
    return _svg(parts, len(shown) * PRICES, _more(bars["symbol"]))


def coverage(gaps: pl.DataFrame, symbols: Sequence[str], day: TimeWindow) -> str:
    """Return an SVG with a strip for each of the first *symbols*: seen, blind, quiet."""
    worst_first = _first(pl.concat([gaps["symbol"], pl.Series("symbol", symbols, pl.String)]))
    parts: list[str] = []
    for row, symbol in enumerate(worst_first):
        top = row * LINE
        parts.append(_rect(LEFT, top + 4, WIDTH, LINE - 8, UP, 0.35))
        parts += _spans(gaps.filter(pl.col("symbol") == symbol), day, top + 4, LINE - 8)
        parts += _label(symbol, top + LINE // 2)
    return _svg(parts, len(worst_first) * LINE, _more(pl.Series(symbols, dtype=pl.String)))


def file_sizes(before: Sequence[int], after: Sequence[int]) -> str:
    """Return an SVG of how many files of each size there were and are; sizes are in bytes."""
    most = max([1, *_counts(before), *_counts(after)])
    parts: list[str] = []
    for row, (color, sizes) in enumerate(((INK, before), (UP, after))):
        for column, count in enumerate(_counts(sizes)):
            x = LEFT + column * COLUMN + row * COLUMN / 2.5
            height = round(count / most * FILES, 1)
            parts.append(
                _rect(x, round(FILES + LINE - height, 1), COLUMN / 2.5, height, color, 0.8)
            )
            if count:
                parts.append(_text(x, round(FILES + LINE - height - 3, 1), str(count)))
        parts.append(_text(0, LINE + row * LINE, ("before", "after")[row], color=color))
    for column, name in enumerate((*(name for name, _ in SIZES), "more")):
        parts.append(_text(LEFT + column * COLUMN, FILES + 2 * LINE - 6, name))
    return _frame(parts, FILES + 2 * LINE)


def _counts(sizes: Sequence[int]) -> list[int]:
    """Return how many of *sizes* are of each class of ``SIZES``, and how many are larger."""
    edges = [edge for _, edge in SIZES]
    counted = [0] * (len(edges) + 1)
    for size in sizes:
        counted[bisect_left(edges, size)] += 1
    return counted


def markdown(svg: str, says: str) -> str:
    """Return *svg* as a markdown image that the UI shows; *says* is read out instead."""
    return f"![{says}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def _first(symbols: pl.Series) -> list[str]:
    return list(symbols.unique(maintain_order=True))[:SYMBOLS_SHOWN]


def _more(symbols: pl.Series) -> str:
    left = symbols.n_unique() - SYMBOLS_SHOWN
    return f"and {left} more" if left > 0 else ""


def _candle_paths(bars: pl.DataFrame, day: TimeWindow, top: int) -> Iterable[str]:
    low, high = bars["low"].min(), bars["high"].max()
    if not isinstance(low, float) or not isinstance(high, float):
        return
    height = PRICES - 10
    scale = height / (high - low) if high > low else 0.0

    def y(price: float) -> float:
        return round(top + 3 + height - (price - low) * scale, 1)

    for color, rising in ((UP, True), (DOWN, False)):
        wicks, bodies = [], []
        kept = bars.filter((pl.col("close") >= pl.col("open")) == rising)
        for at, first, most, least, last in kept.select(
            "open_time", "open", "high", "low", "close"
        ).iter_rows():
            x = round(_x(at + STEP / 2, day), 1)
            upper, lower = y(max(first, last)), y(min(first, last))
            wicks.append(f"M{x} {y(most)}V{y(least)}")
            bodies.append(f"M{x} {upper}V{max(lower, upper + 1)}")
        if wicks:
            yield f'<path stroke="{color}" d="{"".join(wicks)}"/>'
            yield f'<path stroke="{color}" stroke-width="6" d="{"".join(bodies)}"/>'


def _spans(gaps: pl.DataFrame, day: TimeWindow, top: int, height: int) -> Iterable[str]:
    for start, end, cause in gaps.select("start", "end", "cause").head(100).iter_rows():
        left, right = _x(start, day), _x(end, day)
        color = BLIND_TO if cause in BLIND else QUIET
        yield _rect(left, top, max(right - left, 1.0), height, color, 0.5)


def _x(at: datetime, day: TimeWindow) -> float:
    inside = min(max(at, day.start), day.end) - day.start
    return LEFT + WIDTH * (inside / (day.end - day.start))


def _rect(x: float, y: float, width: float, height: float, color: str, opacity: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{color}" '
        f'opacity="{opacity}"/>'
    )


def _label(symbol: str, middle: int) -> list[str]:
    return [_text(0, middle + 3, symbol if len(symbol) <= 20 else symbol[:19] + "…")]


def _text(x: float, y: float, words: str, anchor: str = "start", color: str = INK) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'


def _svg(parts: list[str], height: int, note: str) -> str:
    hours = [
        _text(LEFT + WIDTH * hour / 24, height + 14, f"{hour:02}:00", "middle")
        for hour in (0, 6, 12, 18, 24)
    ]
    return _frame([*parts, *hours, _text(0, height + 14, note)], height + LINE)


def _frame(parts: Sequence[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 24}" '
        f'height="{height}" font-family="monospace" font-size="10" fill="{INK}">'
        f"{''.join(parts)}</svg>"
    )
