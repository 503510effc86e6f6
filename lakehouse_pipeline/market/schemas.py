"""The frame schema of every table, in polars' terms; ``columns`` says what each column means."""

from __future__ import annotations

import polars as pl

from . import columns
from .columns import Column, Type

UTC_TIME = pl.Datetime("us", "UTC")
_TYPES: dict[Type, pl.DataType] = {
    Type.TEXT: pl.String(),
    Type.REAL: pl.Float64(),
    Type.INT: pl.Int32(),
    Type.LONG: pl.Int64(),
    Type.UTC_TIME: UTC_TIME,
}


def schema_of(declared: tuple[Column, ...]) -> pl.Schema:
    """Return names and types of *declared* columns, in their order."""
    return pl.Schema({name: _TYPES[kind] for name, kind, _ in declared})


QUOTES = schema_of(columns.QUOTES)
COVERAGE = schema_of(columns.COVERAGE)
REJECTS = schema_of(columns.REJECTS)
RAW_INDICATORS = schema_of(columns.RAW_INDICATORS)
BARS = schema_of(columns.BARS)
MINUTE_BARS = schema_of(columns.MINUTE_BARS)
HISTORY = schema_of(columns.HISTORY)
FETCHES = schema_of(columns.FETCHES)
GAPS = schema_of(columns.GAPS)
INDICATORS = schema_of(columns.INDICATORS)
RECONCILIATION = schema_of(columns.RECONCILIATION)
SYMBOLS = schema_of(columns.SYMBOLS)
