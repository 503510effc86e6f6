from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse

from lakehouse_pipeline.errors import CommitConflict, TableDamaged
from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import NO_GUARD, apply_cleaning, plan_cleaning
from lakehouse_pipeline.lake.maintenance import (
    Budget,
    compact,
    day_tag,
    expire,
    fingerprint,
    seal,
    tag_day,
)
from lakehouse_pipeline.lake.metadata import EXPIRED_AT_ONCE
from lakehouse_pipeline.lake.tables import SNAPSHOTS_KEPT, TABLES
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, SECOND, TimeWindow
from lakehouse_pipeline.settings import Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
LATER = TEN + 5 * DAY
TABLE = "raw.quotes"
Frames = Callable[..., pl.DataFrame]


def everything(lake: Lakehouse, table: str = TABLE) -> pl.DataFrame:
    return lake.scan(table).collect().sort("sequence")


def fill(lake: Lakehouse, quotes: Frames, *, hours: int = 2, commits: int = 3) -> pl.DataFrame:
    for hour, turn in itertools.product(range(hours), range(commits)):
        first = hour * 100 + turn * 10
        lake.append(TABLE, quotes(TEN + hour * HOUR, first=first, count=10))
    return everything(lake)


def test_sealing_moves_rows_and_changes_none(lake: Lakehouse, quotes: Frames) -> None:
    before = fill(lake, quotes)

    result = seal(lake, TABLE, before=LATER)

    assert (result.commits, result.rows, result.files_removed, result.files_added) == (1, 60, 6, 2)
    assert_frame_equal(everything(lake), before)
    assert lake.files(TABLE).select("spec", "rows").rows() == [("sealed", 30)] * 2
    summary = lake.load(TABLE).snapshots()[-1].summary
    assert summary is not None
    assert summary.operation.value == "replace"
    assert (summary["total-records"], summary["total-data-files"]) == ("60", "2")


def test_sealed_files_are_sorted(lake: Lakehouse, quotes: Frames) -> None:
    fill(lake, quotes)

    seal(lake, TABLE, before=LATER)

    for path in lake.files(TABLE)["path"]:
        rows = pl.read_parquet(path)
        assert_frame_equal(rows, rows.sort("symbol", "event_time", "sequence"))


def test_hours_still_open_stay_hot(lake: Lakehouse, quotes: Frames) -> None:
    fill(lake, quotes)

    result = seal(lake, TABLE, before=TEN + 2 * HOUR - timedelta(microseconds=1))

    assert result.files_removed == 3
    assert sorted(lake.files(TABLE)["spec"]) == ["hot"] * 3 + ["sealed"] * 2


def test_what_is_not_consumed_stays_hot(lake: Lakehouse, quotes: Frames) -> None:
    fill(lake, quotes)

    lake.append(TABLE, quotes(TEN, first=500, count=6, symbols=["OKX:A", "OKX:B"]))

    seal(lake, TABLE, before=LATER, consumed={"BINANCE": 4, "BYBIT": 0})

    hot = lake.files(TABLE).filter(spec="hot")
    assert hot["sequence"].sort().to_list() == [5, 6]


def test_nobody_reads_sealed_rows_again(lake: Lakehouse, quotes: Frames) -> None:
    fill(lake, quotes)
    seen = lake.head(TABLE)
    lake.append(TABLE, quotes(TEN + HOUR, first=900, count=2))

    seal(lake, TABLE, before=LATER, consumed={"BINANCE": seen})
    compact(lake, TABLE, before=LATER)

    assert lake.scan(TABLE, after_sequence=seen).collect()["sequence"].to_list() == [900, 901]


def test_a_sealed_day_is_as_new_as_its_own_rows(lake: Lakehouse, quotes: Frames) -> None:
    midnight = TEN.replace(hour=0) + DAY
    lake.append(TABLE, quotes(midnight - 2 * SECOND, count=4))  # of both days
    lake.append(TABLE, quotes(midnight, first=10, count=1, symbols=["BINANCE:BTCUSDT"]))

    seal(lake, TABLE, before=LATER)

    assert sorted(lake.files(TABLE).select("partition", "sequence").rows()) == [
        ("BINANCE:BTCUSDT/20484", 1),
        ("BINANCE:BTCUSDT/20485", 2),
        ("BINANCE:ETHUSDT/20484", 1),
        ("BINANCE:ETHUSDT/20485", 1),
    ]


def test_rows_of_a_hot_hour_go_to_the_day_they_happened(lake: Lakehouse, quotes: Frames) -> None:
    midnight = TEN.replace(hour=0) + DAY
    rows = quotes(midnight - 5 * MINUTE / 60, count=10).with_columns(
        received_at=pl.lit(midnight + MINUTE).cast(pl.Datetime("us", "UTC"))
    )
    lake.append(TABLE, rows)

    seal(lake, TABLE, before=LATER)

    assert sorted(lake.files(TABLE)["partition"]) == [
        "BINANCE:BTCUSDT/20484",
        "BINANCE:BTCUSDT/20485",
        "BINANCE:ETHUSDT/20484",
        "BINANCE:ETHUSDT/20485",
    ]
    assert_frame_equal(everything(lake), rows)


def test_maintenance_done_twice_finds_nothing(lake: Lakehouse, quotes: Frames) -> None:
    fill(lake, quotes)
    seal(lake, TABLE, before=LATER)
    compact(lake, TABLE, before=LATER)
    head = lake.head(TABLE)

    assert seal(lake, TABLE, before=LATER).commits == 0
    assert compact(lake, TABLE, before=LATER).commits == 0
    assert lake.head(TABLE) == head


def test_compaction_leaves_one_file_a_symbol_and_day(lake: Lakehouse, quotes: Frames) -> None:
    before = fill(lake, quotes)
    for hour in (1, 2):
        seal(lake, TABLE, before=TEN + hour * HOUR)
    assert lake.files(TABLE).height == 4

    result = compact(lake, TABLE, before=LATER)

    assert (result.commits, result.files_removed, result.files_added) == (1, 4, 2)
    assert lake.files(TABLE)["partition"].is_unique().all()
    assert_frame_equal(everything(lake), before)


def test_a_day_not_over_is_compacted_only_when_it_has_many_files(
    lake: Lakehouse, bars: Frames
) -> None:
    table = "market.history_1m"

    def land(minute: int) -> None:
        rows = bars(TEN + minute * MINUTE, symbols=["OKX:A"])
        columns = lake.scan(table).collect_schema()
        lake.append(table, rows.with_columns(fetched_at="open_time").select(list(columns)))

    for minute in range(16):
        land(minute)
    few = compact(lake, table, before=TEN)
    land(16)
    many = compact(lake, table, before=TEN)

    assert (few.commits, many.commits) == (0, 1)
    assert lake.files(table).select("spec", "rows").rows() == [("sealed", 17)]


def test_a_table_without_days_is_compacted_as_if_its_were_over(lake: Lakehouse) -> None:
    table = "market.symbols"
    for number in range(3):
        row = {"exchange": "BINANCE", "symbol": f"BINANCE:S{number}", "valid_from": TEN}
        columns = {name: [row.get(name)] for name in TABLES[table].frame}
        lake.append(table, pl.DataFrame(columns, schema=TABLES[table].frame))

    result = compact(lake, table, before=TEN)

    assert (result.files_removed, result.files_added) == (3, 1)
    assert lake.scan(table).collect().height == 3


def test_a_day_of_more_than_a_file_ends_with_as_few_as_hold_it(
    lake: Lakehouse, quotes: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(1)
    for part in range(3):
        rows = quotes(first=part * 3600, count=3000, symbols=["BINANCE:A"])
        rows = rows.with_columns(bid=pl.Series(chance.random(rows.height)))
        lake.append(TABLE, rows)
        seal(lake, TABLE, before=TEN + (part + 1) * HOUR)
    before, size = everything(lake), lake.files(TABLE)["bytes"].sum()
    # As three of 70 MB: no two fit into one, and two hold all.
    monkeypatch.setattr("lakehouse_pipeline.lake.maintenance.TARGET_BYTES", int(size * 0.55))

    first, second = compact(lake, TABLE, before=LATER), compact(lake, TABLE, before=LATER)

    assert (first.files_removed, first.files_added) == (3, 2)
    assert second.commits == 0
    assert lake.files(TABLE)["rows"].to_list() == [4500, 4500]
    assert_frame_equal(everything(lake), before)


def test_a_spent_budget_leaves_a_backlog_of_the_oldest(
    lake: Lakehouse, quotes: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(lake, quotes)
    monkeypatch.setattr("lakehouse_pipeline.lake.maintenance.BATCH_ROWS", before.height)
    lake.append(TABLE, quotes(TEN, first=500, count=6, symbols=["OKX:A", "OKX:B"]))
    ticking = itertools.count()

    result = seal(
        lake,
        TABLE,
        before=LATER,
        budget=Budget(length=timedelta(seconds=2)),
        clock=lambda: float(next(ticking)),
    )

    assert (result.commits, result.files_removed) == (1, 6)
    assert result.backlog_files == 1
    assert lake.files(TABLE).filter(spec="hot")["partition"].to_list() == ["OKX/491626"]
    assert fingerprint(everything(lake)) != fingerprint(before)


def test_bytes_are_a_budget_too(lake: Lakehouse, quotes: Frames) -> None:
    fill(lake, quotes)

    result = seal(lake, TABLE, before=LATER, budget=Budget(max_bytes=0))

    assert (result.commits, result.backlog_files) == (0, 6)
    assert result.backlog_bytes == lake.files(TABLE)["bytes"].sum()


def test_the_fingerprint_sees_rows_and_not_their_order(quotes: Frames) -> None:
    rows = quotes(count=50)

    assert fingerprint(rows.reverse()) == fingerprint(rows)
    assert fingerprint(rows.head(49)) != fingerprint(rows)
    assert fingerprint(rows.with_columns(bid=pl.lit(0.5))) != fingerprint(rows)


def test_rows_that_do_not_read_back_are_not_committed(
    lake: Lakehouse, quotes: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(lake, quotes)
    prints = itertools.count()
    monkeypatch.setattr("lakehouse_pipeline.lake.maintenance.fingerprint", lambda _: next(prints))

    with pytest.raises(TableDamaged, match="Nothing was changed"):
        seal(lake, TABLE, before=LATER)

    assert lake.head(TABLE) == 6
    assert_frame_equal(everything(lake), before)
    assert len(list(Path(lake.load(TABLE).location()).rglob("*.parquet"))) == 6


# Damage: what cannot be read is left where it is, and keeps nothing else from being done.


def broken(path: Path, how: str) -> Path:
    if how == "missing":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.write_bytes(b"x" * path.stat().st_size)
    return path


@pytest.mark.parametrize("how", ["missing", "cut short", "overwritten"])
def test_a_damaged_hot_file_is_left_out_and_others_are_sealed(
    lake: Lakehouse, quotes: Frames, how: str
) -> None:
    fill(lake, quotes)
    lost = broken(Path(lake.files(TABLE)["path"][0]), how)

    first, again = (seal(lake, TABLE, before=LATER) for _ in range(2))

    assert (first.commits, first.rows, first.damaged) == (1, 50, (str(lost),))
    assert (first.backlog_files, again.backlog_files) == (1, 1)
    assert (again.commits, again.damaged) == (0, first.damaged)
    assert sorted(lake.files(TABLE)["spec"]) == ["hot", "sealed", "sealed"]


@pytest.mark.parametrize("how", ["missing", "cut short", "overwritten"])
def test_a_damaged_day_is_left_out_and_others_are_compacted(
    lake: Lakehouse, quotes: Frames, how: str
) -> None:
    for hour in range(3):
        lake.append(TABLE, quotes(TEN + hour * HOUR, first=hour * 10, count=10))
        seal(lake, TABLE, before=LATER)
    lost = broken(Path(lake.files(TABLE).sort("partition")["path"][0]), how)

    result = compact(lake, TABLE, before=LATER)

    assert result.damaged == (str(lost),)
    assert result.backlog_files == 1
    assert lake.files(TABLE).height == 3  # the day it belongs to has two, the other one
    assert compact(lake, TABLE, before=LATER).commits == 0


class KilledInCommit(SqlCatalog):
    """A catalog whose process ends when all is written and nothing is committed."""

    def commit_table(self, *arguments):  # noqa: ARG002  # the library's signature
        raise KeyboardInterrupt


def test_a_seal_killed_before_its_commit_leaves_only_files_to_clean(
    settings: Settings, lake: Lakehouse, quotes: Frames
) -> None:
    before = fill(lake, quotes)
    folder = settings.state_dir
    dying = KilledInCommit(
        "lakehouse", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder / "warehouse")
    )

    with pytest.raises(KeyboardInterrupt), Lakehouse(dying) as killed:
        seal(killed, TABLE, before=LATER)

    assert_frame_equal(everything(lake), before)
    left = plan_cleaning(lake, TABLE, now=datetime(2100, 1, 1, tzinfo=UTC), guard=NO_GUARD)
    assert sorted(Path(file.path).suffix for file in left.files)[-2:] == [".parquet"] * 2
    apply_cleaning(lake, left)
    assert seal(lake, TABLE, before=LATER).rows == 60
    assert_frame_equal(everything(lake), before)


# Races.


def test_a_seal_overtaken_by_appends_loses_nothing(
    lake: Lakehouse, quotes: Frames, racing: Callable[..., Lakehouse]
) -> None:
    fill(lake, quotes)
    sealer = racing(lambda: lake.append(TABLE, quotes(first=700, count=5)), at=2)

    result = seal(sealer, TABLE, before=TEN + 2 * HOUR)

    # The late rows belong to a closed hour: planned again, they are sealed as well.
    assert (result.commits, result.conflicts, result.rows) == (2, 0, 65)
    assert everything(lake)["sequence"].is_unique().all()
    assert lake.scan(TABLE).collect().height == 65


def test_a_seal_overtaken_by_a_seal_plans_again(
    lake: Lakehouse, quotes: Frames, racing: Callable[..., Lakehouse]
) -> None:
    before = fill(lake, quotes)
    sealer = racing(lambda: seal(lake, TABLE, before=LATER), at=2)

    result = seal(sealer, TABLE, before=LATER)

    assert (result.commits, result.conflicts) == (0, 1)
    assert_frame_equal(everything(lake), before)


def test_a_seal_overtaken_by_an_overwrite_plans_again(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    table, slice_ = "market.bars_1m", Slice("BINANCE", TimeWindow(TEN, TEN + MINUTE))
    lake.append(table, bars(minutes=3))
    sealer = racing(lambda: lake.overwrite(table, bars(close=2.0), slice=slice_), at=2)

    result = seal(sealer, table, before=LATER)

    assert (result.commits, result.conflicts) == (1, 1)
    assert sorted(lake.scan(table).collect()["close"]) == [1.0] * 4 + [2.0] * 2
    assert set(lake.files(table)["spec"]) == {"sealed"}


def test_an_overwrite_elsewhere_passes_a_seal(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    table = "market.bars_1m"
    lake.append(table, bars(minutes=3))
    builder = racing(lambda: seal(lake, table, before=LATER))

    builder.overwrite(
        table,
        bars(TEN + 5 * MINUTE),
        slice=Slice("BINANCE", TimeWindow(TEN + 5 * MINUTE, TEN + 6 * MINUTE)),
    )

    assert lake.scan(table).collect().height == 8


def test_readers_see_every_row_while_files_move(
    settings: Settings, lake: Lakehouse, quotes: Frames
) -> None:
    before = fill(lake, quotes, hours=3)
    done = threading.Event()

    def maintain() -> None:
        try:
            with Lakehouse.open(settings) as own:
                for hour in (1, 2, 3):
                    seal(own, TABLE, before=TEN + hour * HOUR)
                compact(own, TABLE, before=LATER)
                expire(own, TABLE, keep=1)
        finally:
            done.set()

    thread = threading.Thread(target=maintain)
    thread.start()
    seen = []
    while not done.is_set():
        seen.append(fingerprint(everything(lake)))
    thread.join()
    seen.append(fingerprint(everything(lake)))

    assert set(seen) == {fingerprint(before)}
    assert lake.files(TABLE).height == 2


# Expiry and tags.


def test_expiry_keeps_the_newest_and_every_row(lake: Lakehouse, quotes: Frames) -> None:
    before = fill(lake, quotes)

    assert expire(lake, TABLE, keep=2) == 4
    assert expire(lake, TABLE, keep=2) == 0

    assert [s.sequence_number for s in lake.load(TABLE).snapshots()] == [5, 6]
    assert_frame_equal(everything(lake), before)


def test_seals_and_compactions_expire_as_appends_do(lake: Lakehouse, quotes: Frames) -> None:
    for turn in range(SNAPSHOTS_KEPT + EXPIRED_AT_ONCE - 1):
        lake.append(TABLE, quotes(TEN + turn % 24 * HOUR, first=turn * 10, count=10))
    before = everything(lake)

    seal(lake, TABLE, before=LATER)

    assert len(lake.load(TABLE).snapshots()) == SNAPSHOTS_KEPT
    assert_frame_equal(everything(lake), before)


def test_a_tagged_day_outlives_expiry_and_can_be_read(lake: Lakehouse, quotes: Frames) -> None:
    lake.append(TABLE, quotes(count=3))
    day, tag = date(2026, 1, 31), "day-2026-01-31"
    tag_day(lake, TABLE, day)
    lake.append(TABLE, quotes(first=3, count=3))
    tag_day(lake, TABLE, day)  # a day keeps the tag it has
    lake.append(TABLE, quotes(first=6, count=3))

    assert expire(lake, TABLE, keep=1) == 1

    assert lake.scan(TABLE, snapshot=tag).collect().height == 3
    assert lake.scan(TABLE).collect().height == 9


def test_tables_that_keep_no_tags_get_none(lake: Lakehouse) -> None:
    schema = TABLES["market.gaps"].frame
    row = {"exchange": "OKX", "symbol": "OKX:A", "start": TEN}
    lake.append("market.gaps", pl.DataFrame([{**dict.fromkeys(schema), **row}], schema=schema))

    tag_day(lake, "market.gaps", date(2026, 1, 31))

    assert lake.load("market.gaps").refs().keys() == {"main"}


def test_a_tag_may_be_given_to_a_kept_snapshot_only(lake: Lakehouse, quotes: Frames) -> None:
    first = lake.append(TABLE, quotes(count=1)).snapshot_id
    lake.append(TABLE, quotes(first=1, count=1))
    day = date(2026, 1, 31)

    tag_day(lake, TABLE, day)
    tag_day(lake, TABLE, day, snapshot_id=first)

    assert lake.scan(TABLE, snapshot=day_tag(day)).collect().height == 1
    with pytest.raises(CommitConflict, match="gone"):
        tag_day(lake, TABLE, day, snapshot_id=1)


class OvertakenInCommit(SqlCatalog):
    """A catalog that somebody else changes just before it commits, once."""

    action: Callable[[], object] | None = None

    def commit_table(self, *arguments: Any) -> CommitTableResponse:
        action, self.action = self.action, None
        if action is not None:
            action()
        return super().commit_table(*arguments)


def test_a_tag_overtaken_by_the_expiry_of_its_snapshot_is_a_conflict(
    settings: Settings, lake: Lakehouse, quotes: Frames
) -> None:
    first = lake.append(TABLE, quotes(count=1)).snapshot_id
    lake.append(TABLE, quotes(first=1, count=1))
    folder = settings.state_dir
    catalog = OvertakenInCommit(
        "lakehouse", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder / "warehouse")
    )
    catalog.action = lambda: expire(lake, TABLE, keep=1)

    with Lakehouse(catalog) as tagging, pytest.raises(CommitConflict, match="gone"):
        tag_day(tagging, TABLE, date(2026, 1, 31), snapshot_id=first)

    assert catalog.action is None
    assert lake.tags(TABLE) == {}


def test_an_expiry_overtaken_by_a_tag_keeps_what_was_tagged(
    settings: Settings, lake: Lakehouse, quotes: Frames
) -> None:
    first = lake.append(TABLE, quotes(count=1)).snapshot_id
    for number in range(1, 4):
        lake.append(TABLE, quotes(first=number, count=1))
    folder, day = settings.state_dir, date(2026, 1, 31)
    catalog = OvertakenInCommit(
        "lakehouse", uri=f"sqlite:///{folder}/catalog.db", warehouse=str(folder / "warehouse")
    )
    catalog.action = lambda: tag_day(lake, TABLE, day, snapshot_id=first)

    with Lakehouse(catalog) as expiring:
        assert expire(expiring, TABLE, keep=1) == 2

    assert catalog.action is None
    assert lake.scan(TABLE, snapshot=day_tag(day)).collect().height == 1


def test_the_newest_fourteen_days_keep_their_tag(lake: Lakehouse, quotes: Frames) -> None:
    lake.append(TABLE, quotes(count=1))

    for day in range(1, 18):
        tag_day(lake, TABLE, date(2026, 1, day))

    tags = sorted(lake.load(TABLE).refs().keys() - {"main"})
    assert (tags[0], tags[-1], len(tags)) == ("day-2026-01-04", "day-2026-01-17", 14)
