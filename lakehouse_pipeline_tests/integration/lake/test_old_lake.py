"""A lake as version 1 of the schema wrote it, kept in ``lake_of_version_1.zip``, opened today.

Its locations are relative to the folder it was made in, so that it can be unpacked anywhere. It
holds bars (sealed, tagged, and some hot ones landed later) and quotes. Never make it anew: a lake
of a later version is another file beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl
import pytest

from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.catalog import open_catalog
from lakehouse_pipeline.lake.maintenance import compact, seal
from lakehouse_pipeline.lake.tables import SCHEMA_VERSION, SCHEMA_VERSION_PROPERTY, TABLES
from lakehouse_pipeline.market.windows import DAY, HOUR, TimeWindow
from lakehouse_pipeline.settings import Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
BARS = "market.bars_1m"


@pytest.fixture
def lake(stored: Settings) -> Iterator[Lakehouse]:
    with Lakehouse.open(stored) as lake:
        yield lake


def test_what_is_stored_is_of_an_older_version(stored: Settings) -> None:
    catalog = open_catalog(stored)
    table = catalog.load_table(BARS)
    catalog.close()

    assert int(table.properties[SCHEMA_VERSION_PROPERTY]) == 1
    assert SCHEMA_VERSION > 1
    assert set(TABLES[BARS].frame) - set(table.schema().column_names)


def test_every_table_is_brought_up_to_date(lake: Lakehouse) -> None:
    for name, spec in TABLES.items():
        table = lake.load(name)
        assert table.schema().column_names == list(spec.frame), name
        assert table.properties[SCHEMA_VERSION_PROPERTY] == str(SCHEMA_VERSION), name
        assert lake.scan(name).collect().schema == spec.frame, name


def test_every_row_and_the_progress_are_still_there(lake: Lakehouse) -> None:
    bars = lake.scan(BARS).sort("symbol", "open_time").collect()

    assert bars["close"].to_list() == [0.0, 1.0, 2.0] * 4
    assert bars["price_deviation"].null_count() == bars.height == 12
    assert lake.scan("raw.quotes").collect()["sequence"].sort().to_list() == [0, 1, 2, 3, 4]
    assert lake.progress(BARS, "built_from.BINANCE") == 7
    assert lake.progress("raw.quotes", "writer.w") == 4


def test_its_tags_can_still_be_travelled_to(lake: Lakehouse) -> None:
    assert lake.scan(BARS, snapshot="day-2026-01-31").collect().height == 6


def test_new_rows_land_beside_the_old_and_are_sealed_with_them(lake: Lakehouse) -> None:
    old = lake.scan(BARS).collect()
    late = old.head(1).with_columns(
        price_deviation=pl.lit(0.5), open_time=pl.lit(TEN + 2 * HOUR).cast(pl.Datetime("us", "UTC"))
    )
    lake.append(BARS, late)

    seal(lake, BARS, before=TEN + DAY)
    compact(lake, BARS, before=TEN + DAY)

    assert lake.files(BARS).height == 2
    rows = lake.scan(BARS).collect()
    assert rows.height == 13
    assert rows["price_deviation"].drop_nulls().to_list() == [0.5]


def test_a_slice_of_the_old_can_be_replaced(lake: Lakehouse) -> None:
    hour = TimeWindow(TEN, TEN + HOUR)
    new = lake.scan(BARS, window=hour).collect().with_columns(price_deviation=pl.lit(0.25))

    lake.overwrite(BARS, new, slice=Slice("BINANCE", hour))

    rows = lake.scan(BARS).collect()
    assert rows.height == 12
    assert rows["price_deviation"].drop_nulls().to_list() == [0.25] * 6
