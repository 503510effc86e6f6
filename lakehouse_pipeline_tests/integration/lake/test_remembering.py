"""Metadata is read once; another process's commits are seen all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.errors import TableDamaged
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.catalog import read_table
from lakehouse_pipeline.settings import Settings

TABLE = "raw.quotes"
Frames = Callable[..., pl.DataFrame]


def test_what_another_lake_commits_is_seen_at_once(
    settings: Settings, lake: Lakehouse, quotes: Frames
) -> None:
    with Lakehouse.open(settings) as other:
        for turn in range(3):
            writing, reading = (lake, other) if turn % 2 else (other, lake)
            writing.append(TABLE, quotes(first=turn * 10), progress={"turn": turn})

            assert reading.progress(TABLE, "turn") == turn
            assert reading.load(TABLE).metadata == read_table(writing.catalog, TABLE).metadata


def test_own_commits_are_not_read_back(lake: Lakehouse, quotes: Frames) -> None:
    lake.append(TABLE, quotes())
    Path(lake.load(TABLE).metadata_location).write_text("", "utf-8")

    lake.append(TABLE, quotes(first=10))

    assert lake.scan(TABLE).collect().height == quotes().height * 2


def test_who_examines_a_table_reads_its_file(lake: Lakehouse, quotes: Frames) -> None:
    lake.append(TABLE, quotes())
    Path(lake.load(TABLE).metadata_location).write_text("", "utf-8")

    with pytest.raises(TableDamaged, match=r"metadata of raw\.quotes"):
        read_table(lake.catalog, TABLE)
