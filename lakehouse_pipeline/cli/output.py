"""How frames are printed: a table for people, CSV, JSON and Parquet for machines.

Machine formats hold the tables' own column names, ISO 8601 UTC times and nothing for null;
standard output holds nothing else.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from shutil import get_terminal_size
from typing import Literal

import msgspec
import polars as pl
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

PROSE = {"evidence", "what"}  # columns whose text may wrap
PROSE_WIDTH = 24  # characters it needs to be read
PAGE_WIDTH = 160  # what is not a terminal has no width of its own; prose wraps here


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def write(
    frame: pl.DataFrame,
    form: Format,
    *,
    title: str = "",
    shown: pl.DataFrame | None = None,
    nothing: str = "nothing yet",
) -> None:
    """Write *frame* to standard output in *form*; people are given what is *shown* instead.

    They are told *nothing* of a frame without rows.
    """
    if form is Format.csv:
        sys.stdout.write(iso_times(frame).write_csv())
    elif form is Format.json:
        rows = iso_times(frame).to_dicts()
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n")
    elif form is Format.parquet:
        frame.write_parquet(sys.stdout.buffer)
    else:
        _write_table(frame if shown is None else shown, title, nothing)


def iso_times(frame: pl.DataFrame) -> pl.DataFrame:
    """Return *frame* with every time as ISO 8601 text, fractions only where there are any."""
    return frame.with_columns(
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime)
    )


def _write_table(frame: pl.DataFrame, title: str, nothing: str) -> None:
    if frame.is_empty():
        print(f"{title}: {nothing}.")  # noqa: T201  # the command's own voice
        return
    filled = frame.select(name for name in frame.columns if frame[name].null_count() < frame.height)
    width = get_terminal_size().columns if sys.stdout.isatty() else PAGE_WIDTH
    shown = filled.width
    # A figure cut to the terminal's width says nothing, nor do lines that wrap into each other:
    # a terminal gets the columns that fit, first things first, and a file all of them.
    if sys.stdout.isatty():
        while shown > 1 and _least_width(filled[:, :shown]) > width:
            shown -= 1
    table = _table(filled[:, :shown], title)
    Console(width=max(width, _least_width(filled[:, :shown]))).print(table)
    if left_out := filled.columns[shown:]:
        print(f"Not shown in {width} columns: {', '.join(left_out)}. --format csv has them.")  # noqa: T201  # as above


def _table(frame: pl.DataFrame, title: str = "") -> Table:
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    texts = [_texts(column) for column in frame]
    for column, cells in zip(frame, texts, strict=True):
        justify: Literal["left", "right"] = "right" if column.dtype.is_numeric() else "left"
        if column.name in PROSE:
            table.add_column(column.name, justify=justify, min_width=PROSE_WIDTH)
        else:
            longest = max(map(cell_len, (column.name, *cells)))
            table.add_column(column.name, justify=justify, min_width=longest, no_wrap=True)
    for row in zip(*texts, strict=True):
        table.add_row(*row)
    return table


def _least_width(frame: pl.DataFrame) -> int:
    console = Console(width=10_000)
    return Measurement.get(console, console.options, _table(frame)).minimum


def _texts(column: pl.Series) -> list[str]:
    """Return the cells of *column*, written alike: the eye compares figures by their places."""
    if column.dtype.is_float():
        places = decimals_shown(column)
        form = ",.10g" if places is None else f",.{places}f"
        return ["" if value is None else f"{value + 0.0:{form}}" for value in column]  # no -0.00
    if isinstance(column.dtype, pl.Datetime):
        minutes = (column.dt.truncate("1m") == column).all()
        form = "%Y-%m-%d %H:%M" if minutes else "%Y-%m-%d %H:%M:%S"
        return ["" if value is None else f"{value:{form}}" for value in column]
    return ["" if value is None else str(value) for value in column]


def decimals_shown(column: pl.Series) -> int | None:
    """Return how many decimals the figures of *column* have within ten digits.

    None if one is too large or too small to be written out.
    """
    texts = [f"{value:.10g}" for value in column.drop_nulls()]
    if any("e" in text for text in texts):
        return None
    return max((len(text.partition(".")[2]) for text in texts), default=0)
