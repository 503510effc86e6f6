"""Progress of writers whose spools are lost does not stay for good; that of others does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import polars as pl

from lakehouse_pipeline.ingest.lost_writers import LOST_AFTER, NOTED, forget_lost_writers
from lakehouse_pipeline.ingest.sink import progress_key
from lakehouse_pipeline.lake import Lakehouse

TABLE = "raw.quotes"
TODAY = date(2026, 2, 1)
Frames = Callable[..., pl.DataFrame]


def send(lake: Lakehouse, rows: pl.DataFrame, writer: str, upto: int) -> None:
    lake.append(TABLE, rows, progress={progress_key(writer): upto})


def test_a_writer_that_stood_still_for_long_is_forgotten(lake: Lakehouse, quotes: Frames) -> None:
    for writer in ("lost", "quiet", "busy"):
        send(lake, quotes(), writer, 5)
    assert forget_lost_writers(lake, TABLE, today=TODAY) == []

    send(lake, quotes(), "busy", 6)
    day_before = TODAY + LOST_AFTER - timedelta(days=1)
    assert forget_lost_writers(lake, TABLE, today=day_before) == []
    send(lake, quotes(), "quiet", 9)
    assert forget_lost_writers(lake, TABLE, today=TODAY + LOST_AFTER) == ["lost"]

    assert lake.progress_by(TABLE, "writer.") == {"quiet": 9, "busy": 6}


def test_a_hundred_lost_spools_a_day_leave_a_bounded_table(lake: Lakehouse) -> None:
    nothing = lake.scan(TABLE).collect()
    most = 0
    for turn in range(8):
        today = TODAY + turn * LOST_AFTER / 2
        lost = {progress_key(f"{turn}-{number}"): number for number in range(100)}
        lake.append(TABLE, nothing, progress=lost)
        forget_lost_writers(lake, TABLE, today=today)
        most = max(most, len(lake.progress_by(TABLE, "writer.")))

    assert most == 200


def test_a_writer_that_retired_is_not_noted_any_more(lake: Lakehouse, quotes: Frames) -> None:
    send(lake, quotes(), "a", 5)
    forget_lost_writers(lake, TABLE, today=TODAY)

    lake.forget(TABLE, progress_key("a"))
    forget_lost_writers(lake, TABLE, today=TODAY)

    assert lake.note(TABLE, NOTED) == "{}"


def test_a_table_without_writers_is_left_as_it_is(lake: Lakehouse) -> None:
    before = lake.load("market.gaps").metadata_location

    assert forget_lost_writers(lake, "market.gaps", today=TODAY) == []

    assert lake.load("market.gaps").metadata_location == before
