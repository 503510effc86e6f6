from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError

from lakehouse_pipeline.errors import CatalogUnreachable, CommitConflict
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.tables import SNAPSHOTS_KEPT
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import HOUR, MINUTE, SECOND, TimeWindow
from lakehouse_pipeline.settings import Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
Frames = Callable[..., pl.DataFrame]


def test_rows_come_back_as_they_went_in(lake: Lakehouse, quotes: Frames) -> None:
    rows = quotes(count=10)

    lake.append("raw.quotes", rows)

    assert_frame_equal(lake.scan("raw.quotes").collect().sort("sequence"), rows)


def test_rows_and_progress_land_in_one_transaction(lake: Lakehouse, quotes: Frames) -> None:
    commit = lake.append("raw.quotes", quotes(count=5), progress={"writer.a": 4})

    assert (commit.rows, commit.files_added, commit.sequence) == (5, 1, 1)
    assert lake.progress("raw.quotes", "writer.a") == 4
    assert lake.progress("raw.quotes", "writer.b") is None
    assert lake.head("raw.quotes") == 1


def test_one_commit_of_many_symbols_makes_one_file_an_hour(lake: Lakehouse, quotes: Frames) -> None:
    names = [f"BINANCE:S{number}USDT" for number in range(40)]
    over_the_hour = quotes(TEN + 59 * MINUTE + 30 * SECOND, count=80, symbols=names)

    lake.append("raw.quotes", over_the_hour)

    files = lake.files("raw.quotes")
    assert files["spec"].to_list() == ["hot", "hot"]
    assert sorted(files["partition"].to_list()) == ["BINANCE/491626", "BINANCE/491627"]


def test_an_empty_append_makes_no_commit(lake: Lakehouse) -> None:
    before = lake.load("raw.quotes").metadata_location

    commit = lake.append("raw.quotes", pl.DataFrame(schema=schemas.QUOTES))

    assert commit.snapshot_id is None
    assert lake.load("raw.quotes").metadata_location == before


def test_an_empty_append_still_moves_progress_but_only_once(lake: Lakehouse) -> None:
    empty = pl.DataFrame(schema=schemas.QUOTES)
    lake.append("raw.quotes", empty, progress={"writer.a": 7})
    before = lake.load("raw.quotes").metadata_location

    lake.append("raw.quotes", empty, progress={"writer.a": 7})

    assert lake.progress("raw.quotes", "writer.a") == 7
    assert lake.load("raw.quotes").metadata_location == before


def test_a_null_where_none_may_be_lands_nothing(lake: Lakehouse, quotes: Frames) -> None:
    rows = quotes(count=2).with_columns(symbol=pl.lit(None, pl.String))

    with pytest.raises(ValueError, match="symbol"):
        lake.append("raw.quotes", rows)

    assert lake.head("raw.quotes") == 0


def test_a_scan_is_pruned_and_filtered(lake: Lakehouse, bars: Frames) -> None:
    lake.append("market.bars_1m", bars(TEN, minutes=120))
    lake.append("market.bars_1m", bars(TEN, minutes=120, symbols=["OKX:BTCUSDT"]))

    rows = lake.scan(
        "market.bars_1m",
        window=TimeWindow(TEN + HOUR, TEN + HOUR + 5 * MINUTE),
        exchange="BINANCE",
        symbols=["BINANCE:BTCUSDT"],
        columns=["open_time", "symbol"],
    )

    assert rows.collect().rows() == [
        (TEN + HOUR + minute * MINUTE, "BINANCE:BTCUSDT") for minute in range(5)
    ]
    assert rows.explain().count(".parquet") == 1


def test_manifests_of_other_exchanges_are_not_read(
    settings: Settings, lake: Lakehouse, bars: Frames
) -> None:
    lake.append("market.bars_1m", bars(TEN))
    lake.append("market.bars_1m", bars(TEN, symbols=["OKX:BTCUSDT"]))

    with Lakehouse.open(settings) as fresh:
        found = fresh.scan("market.bars_1m", exchange="OKX").collect().height

        assert found == 1
        assert len(fresh._planner._manifests) == 1


def test_a_scan_of_no_symbols_is_empty(lake: Lakehouse, bars: Frames) -> None:
    lake.append("market.bars_1m", bars())

    assert lake.scan("market.bars_1m", symbols=[]).collect().height == 0


def test_a_scan_keeps_its_snapshot(lake: Lakehouse, bars: Frames) -> None:
    lake.append("market.bars_1m", bars())
    rows = lake.scan("market.bars_1m")
    head = lake.load("market.bars_1m").current_snapshot()

    lake.append("market.bars_1m", bars(TEN + MINUTE))

    assert rows.collect().height == 2
    assert head is not None
    assert lake.scan("market.bars_1m", snapshot=head.snapshot_id).collect().height == 2


def test_readers_find_what_is_newer_than_their_sequence(lake: Lakehouse, bars: Frames) -> None:
    lake.append("market.bars_1m", bars())
    seen = lake.head("market.bars_1m")
    lake.append("market.bars_1m", bars(TEN + MINUTE, minutes=3))
    lake.append("market.bars_1m", bars(TEN, symbols=["OKX:BTCUSDT"]))

    touched = lake.touched_since("market.bars_1m", seen, "BINANCE")

    assert [(file.rows, file.sequence, file.times) for file in touched] == [
        (6, 2, (TEN + MINUTE, TEN + 3 * MINUTE))
    ]
    assert (
        lake.scan("market.bars_1m", after_sequence=seen, exchange="BINANCE").collect().height == 6
    )


def test_concurrent_appends_all_land_once_with_their_progress(
    settings: Settings, lake: Lakehouse, quotes: Frames
) -> None:
    def write(writer: int) -> None:
        with Lakehouse.open(settings) as own:
            for turn in range(5):
                first = writer * 100 + turn * 10
                own.append(
                    "raw.quotes", quotes(first=first, count=10), progress={f"writer.{writer}": turn}
                )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    numbers = lake.scan("raw.quotes").collect()["sequence"].sort().to_list()
    assert numbers == [w * 100 + n for w in range(4) for n in range(50)]
    assert [lake.progress("raw.quotes", f"writer.{w}") for w in range(4)] == [4] * 4


def test_threads_may_share_a_lake(lake: Lakehouse, quotes: Frames) -> None:
    def write_and_read(thread: int) -> int:
        for turn in range(4):
            lake.append("raw.quotes", quotes(first=thread * 100 + turn, count=1))
        return lake.scan("raw.quotes").collect().height

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(write_and_read, range(4)))

    assert max(seen) == 16
    assert lake.scan("raw.quotes").collect()["sequence"].is_unique().all()


def test_snapshots_are_expired_as_they_are_made_and_progress_stays(
    lake: Lakehouse, bars: Frames
) -> None:
    for number in range(SNAPSHOTS_KEPT + 15):
        lake.append("market.bars_1m", bars(TEN + number * MINUTE), progress={"k": number})

    table = lake.load("market.bars_1m")
    assert len(table.snapshots()) < SNAPSHOTS_KEPT + 10
    assert lake.progress("market.bars_1m", "k") == SNAPSHOTS_KEPT + 14
    assert lake.scan("market.bars_1m").collect().height == 2 * (SNAPSHOTS_KEPT + 15)
    # Manifests are merged as well, else planning would open one for each commit.
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(table.io)) < 50


class LostResponse(SqlCatalog):
    """A catalog whose answer to one commit is lost after it has landed."""

    failure: Exception | None = None

    def commit_table(self, *arguments):
        response = super().commit_table(*arguments)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return response


@pytest.fixture
def lossy(settings: Settings, lake: Lakehouse):  # noqa: ARG001  # the tables are there
    folder = settings.state_dir
    catalog = LostResponse(
        "lakehouse", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder / "warehouse")
    )
    yield catalog
    catalog.close()


def test_after_a_commit_of_unknown_outcome_progress_tells(
    lossy: LostResponse, lake: Lakehouse, quotes: Frames
) -> None:
    lossy.failure = OperationalError("UPDATE", {}, OSError("connection lost"))

    with pytest.raises(CatalogUnreachable, match="connection lost"):
        Lakehouse(lossy).append("raw.quotes", quotes(count=3), progress={"writer.a": 2})

    assert lake.progress("raw.quotes", "writer.a") == 2
    assert lake.scan("raw.quotes").collect().height == 3


def test_a_commit_reported_lost_that_landed_is_not_repeated(
    lossy: LostResponse, lake: Lakehouse, quotes: Frames
) -> None:
    lossy.failure = CommitFailedException("lost")

    commit = Lakehouse(lossy).append("raw.quotes", quotes(count=3))

    assert commit.sequence == 1
    assert lake.scan("raw.quotes").collect().height == 3


def test_an_append_that_lands_after_the_look_makes_the_next_one_look_again(
    lake: Lakehouse, quotes: Frames
) -> None:
    key, rows = "writer.a", quotes(count=5)
    seen = {key: lake.progress("raw.quotes", key)}
    lake.append("raw.quotes", rows, progress={key: 4})  # its outcome was unknown, and it landed

    with pytest.raises(CommitConflict, match="Look again"):
        lake.append("raw.quotes", rows, progress={key: 4}, seen=seen)

    assert lake.scan("raw.quotes").collect().height == 5


def test_an_append_that_lands_during_the_next_one_makes_it_fail(
    lake: Lakehouse, quotes: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, rows = "writer.a", quotes(count=5)
    commit = SqlCatalog.commit_table
    late = iter([True])

    def overtaken(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        if next(late, False):
            lake.append("raw.quotes", rows, progress={key: 4})
        return commit(self, *args, **kwargs)

    monkeypatch.setattr(SqlCatalog, "commit_table", overtaken)

    with pytest.raises(CommitConflict, match="Look again"):
        lake.append("raw.quotes", rows, progress={key: 4}, seen={key: None})

    assert lake.scan("raw.quotes").collect().height == 5
