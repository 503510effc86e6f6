"""How frames are printed: a table for people, CSV, JSON and Parquet for machines.

Machine formats hold the tables' own column names, ISO 8601 UTC times and nothing for null;
standard output holds nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum

import msgspec
import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

PROSE = {"evidence"}  # columns whose text may wrap
MAX_WIDTH = 160


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def write(
    frame: pl.DataFrame, form: Format, *, title: str = "", hidden: Collection[str] = ()
) -> None:
    """Write *frame* to standard output in *form*; people are spared the *hidden* columns."""
    if form is Format.csv:
        sys.stdout.write(iso_times(frame).write_csv())
    elif form is Format.json:
        rows = iso_times(frame).to_dicts()
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n")
    elif form is Format.parquet:
        frame.write_parquet(sys.stdout.buffer)
    else:
        _write_table(frame.drop(hidden, strict=False), title)


def iso_times(frame: pl.DataFrame) -> pl.DataFrame:
    """Return *frame* with every time as ISO 8601 text, fractions only where there are any."""
    return frame.with_columns(
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime)
    )


def _write_table(frame: pl.DataFrame, title: str) -> None:
    if frame.is_empty():
        print(f"{title}: nothing yet.")  # noqa: T201  # the command's own voice
        return
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown = [name for name in frame.columns if frame[name].null_count() < frame.height]
    for name in shown:
        numeric = frame.schema[name].is_numeric()
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name not in PROSE)
    for row in frame.select(shown).iter_rows():
        table.add_row(*(_cell(value) for value in row))
    # A figure cut to the terminal's width says nothing; a line that wraps still does.
    Console(width=MAX_WIDTH).print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return f"{value:,.10g}" if isinstance(value, float) else str(value)
