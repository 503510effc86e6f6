from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.errors import CommitConflict
from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import NO_GUARD, plan_cleaning
from lakehouse_pipeline.lake.progress import at_least
from lakehouse_pipeline.lake.removals import MICROSECOND
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
TABLE = "market.bars_1m"
Frames = Callable[..., pl.DataFrame]


def window(first: int, last: int) -> TimeWindow:
    """Minutes *first* to *last*, exclusive, after ten."""
    return TimeWindow(TEN + first * MINUTE, TEN + last * MINUTE)


def closes(lake: Lakehouse, table: str = TABLE) -> dict[tuple[str, int], float]:
    """Map (symbol, minutes after ten) to close; fails on a bar that is there twice."""
    rows = lake.scan(table).collect()
    found = {
        (symbol.partition(":")[2], int((time - TEN) / MINUTE)): close
        for symbol, time, close in rows.select("symbol", "open_time", "close").iter_rows()
    }
    assert len(found) == rows.height
    return found


def test_exactly_the_slice_is_replaced(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=6))

    commit = lake.overwrite(
        TABLE,
        bars(TEN + 2 * MINUTE, minutes=2, close=2.0),
        slice=Slice("BINANCE", window(2, 4)),
        progress={"built_from": 9},
    )

    expected = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0]
    assert closes(lake) == {
        (name, minute): close
        for name in ("BTCUSDT", "ETHUSDT")
        for minute, close in enumerate(expected)
    }
    assert (commit.files_removed, commit.sequence) == (1, 2)
    assert lake.progress(TABLE, "built_from") == 9


def test_a_slice_shrinks_to_what_is_given(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=4, symbols=["BINANCE:BTCUSDT"]))

    nothing = pl.DataFrame(schema=schemas.MINUTE_BARS)
    lake.overwrite(TABLE, nothing, slice=Slice("BINANCE", window(1, 3)))

    assert sorted(minute for _, minute in closes(lake)) == [0, 3]


def test_other_exchanges_and_symbols_stay(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=2))
    lake.append(TABLE, bars(minutes=2, symbols=["OKX:SOLUSDT"]))
    only = ("BINANCE:ETHUSDT",)

    lake.overwrite(
        TABLE,
        bars(minutes=1, close=5.0, symbols=only),
        slice=Slice("BINANCE", window(0, 2), symbols=only),
    )

    assert closes(lake) == {
        ("BTCUSDT", 0): 1.0,
        ("BTCUSDT", 1): 1.0,
        ("SOLUSDT", 0): 1.0,
        ("SOLUSDT", 1): 1.0,
        ("ETHUSDT", 0): 5.0,
    }


def test_files_wholly_inside_are_dropped_unread(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=2))
    lake.append(TABLE, bars(TEN + 2 * MINUTE, minutes=2))
    untouched = lake.files(TABLE).filter(sequence=2)

    commit = lake.overwrite(TABLE, bars(minutes=2), slice=Slice("BINANCE", window(0, 2)))

    assert (commit.files_added, commit.files_removed) == (1, 1)
    assert_frame_equal(lake.files(TABLE).filter(sequence=2), untouched)


def test_a_slice_ends_before_its_end(lake: Lakehouse, bars: Frames) -> None:
    only = ["BINANCE:BTCUSDT"]
    lake.append(TABLE, bars(minutes=3, symbols=only))  # its last bar opens where the slice ends

    lake.overwrite(
        TABLE, pl.DataFrame(schema=schemas.MINUTE_BARS), slice=Slice("BINANCE", window(0, 2))
    )

    assert closes(lake) == {("BTCUSDT", 2): 1.0}


def test_files_with_rows_around_the_slice_only_are_left_alone(
    lake: Lakehouse, bars: Frames
) -> None:
    lake.append(TABLE, pl.concat([bars(), bars(TEN + 5 * MINUTE)]))

    commit = lake.overwrite(TABLE, bars(TEN + 2 * MINUTE), slice=Slice("BINANCE", window(2, 3)))

    assert (commit.files_added, commit.files_removed) == (1, 0)


def test_survivors_of_a_rewritten_file_keep_their_sequence(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=4))

    lake.overwrite(
        TABLE, bars(TEN + MINUTE, minutes=1, close=2.0), slice=Slice("BINANCE", window(1, 2))
    )

    assert lake.scan(TABLE, after_sequence=1).collect()["close"].to_list() == [2.0, 2.0]
    assert sorted(lake.files(TABLE)["sequence"].to_list()) == [1, 2]


def test_an_overwrite_is_one_snapshot(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=4))

    lake.overwrite(TABLE, bars(minutes=1, close=2.0), slice=Slice("BINANCE", window(0, 1)))

    summary = lake.load(TABLE).snapshots()[-1].summary
    assert summary is not None
    assert [s.sequence_number for s in lake.load(TABLE).snapshots()] == [1, 2]
    assert summary.operation.value == "overwrite"
    assert (summary["total-records"], summary["total-data-files"]) == ("8", "2")
    assert (summary["added-data-files"], summary["deleted-data-files"]) == ("2", "1")


def test_an_empty_slice_makes_a_plain_append(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=2))

    commit = lake.overwrite(TABLE, bars(TEN + 2 * MINUTE), slice=Slice("BINANCE", window(2, 3)))

    summary = lake.load(TABLE).snapshots()[-1].summary
    assert (commit.files_added, commit.files_removed) == (1, 0)
    assert summary is not None
    assert summary.operation.value == "append"


def test_replacing_nothing_with_nothing_makes_no_snapshot(lake: Lakehouse) -> None:
    commit = lake.overwrite(
        TABLE,
        pl.DataFrame(schema=schemas.MINUTE_BARS),
        slice=Slice("BINANCE", window(0, 1)),
        progress={"built_from": 3},
    )

    assert commit.snapshot_id is None
    assert lake.progress(TABLE, "built_from") == 3


def test_whole_days_are_written_sealed_and_less_is_hot(lake: Lakehouse, bars: Frames) -> None:
    midnight = TEN.replace(hour=0)
    day = Slice("BINANCE", TimeWindow(midnight, midnight + 2 * DAY))
    lake.overwrite(TABLE, bars(TEN + 13 * HOUR, minutes=120), slice=day)
    sealed = lake.files(TABLE)

    lake.overwrite(TABLE, bars(TEN, minutes=1), slice=Slice("BINANCE", window(0, 1)))

    assert sealed["spec"].unique().to_list() == ["sealed"]
    assert sealed.height == 4  # two symbols on two days
    assert sorted(lake.files(TABLE)["spec"]) == ["hot", *["sealed"] * 4]


def test_tables_without_a_hot_spec_are_split_by_symbol_and_day(
    lake: Lakehouse, bars: Frames
) -> None:
    rows = bars(minutes=2).select(
        *(name for name in schemas.HISTORY if name != "fetched_at"), fetched_at="open_time"
    )

    lake.overwrite("market.history_1m", rows, slice=Slice("BINANCE", window(0, 2)))

    assert lake.files("market.history_1m").select("spec", "rows").rows() == [("sealed", 2)] * 2


def test_rows_outside_the_slice_are_refused(lake: Lakehouse, bars: Frames) -> None:
    with pytest.raises(ValueError, match="outside"):
        lake.overwrite(TABLE, bars(minutes=2), slice=Slice("BINANCE", window(0, 1)))


def test_a_slice_written_since_the_caller_looked_is_a_conflict(
    lake: Lakehouse, bars: Frames
) -> None:
    began = lake.head(TABLE)
    lake.append(TABLE, bars(close=7.0))
    here, elsewhere = Slice("BINANCE", window(0, 1)), Slice("BINANCE", window(1, 2))

    named = r"BINANCE 2026-01-31 10:00:00 to 2026-01-31 10:01:00 UTC of market\.bars_1m"
    with pytest.raises(CommitConflict, match=named):
        lake.overwrite(TABLE, bars(), slice=here, since=began)
    lake.overwrite(TABLE, bars(TEN + MINUTE), slice=elsewhere, since=began)

    assert set(closes(lake).values()) == {7.0, 1.0}


def test_rows_taken_away_since_the_caller_looked_are_a_conflict(
    lake: Lakehouse, bars: Frames
) -> None:
    lake.append(TABLE, bars(minutes=3))
    began = lake.head(TABLE)
    here, nothing = Slice("BINANCE", window(0, 2)), pl.DataFrame(schema=schemas.MINUTE_BARS)
    lake.overwrite(TABLE, nothing, slice=here, since=began)

    with pytest.raises(CommitConflict, match="Somebody else"):
        lake.overwrite(TABLE, bars(minutes=2), slice=here, since=began)
    lake.overwrite(
        TABLE, bars(TEN + 2 * MINUTE, close=2.0), slice=Slice("BINANCE", window(2, 3)), since=began
    )

    assert closes(lake) == {("BTCUSDT", 2): 2.0, ("ETHUSDT", 2): 2.0}


def test_rows_taken_away_are_a_change(lake: Lakehouse, bars: Frames) -> None:
    lake.append(TABLE, bars(minutes=4))
    lake.append(TABLE, bars(symbols=["OKX:BTCUSDC"]))
    seen = lake.head(TABLE)
    nothing = pl.DataFrame(schema=schemas.MINUTE_BARS)

    lake.overwrite(TABLE, nothing, slice=Slice("BINANCE", window(1, 9)))

    (taken,) = lake.changed_since(TABLE, seen, "BINANCE")
    assert (taken.start, taken.end) == (TEN + MINUTE, TEN + 3 * MINUTE + MICROSECOND)
    assert lake.changed_since(TABLE, seen, "OKX") == []
    assert lake.changed_since(TABLE, lake.head(TABLE), "BINANCE") == []


def test_a_retried_overwrite_notes_the_commit_that_took_rows_away(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    lake.append(TABLE, bars())
    nothing, here = pl.DataFrame(schema=schemas.MINUTE_BARS), Slice("BINANCE", window(0, 1))

    late = racing(lambda: lake.append(TABLE, bars(symbols=["OKX:BTCUSDC"])))
    commit = late.overwrite(TABLE, nothing, slice=here)

    assert commit.sequence == 3
    assert lake.changed_since(TABLE, 2, "BINANCE") == [TimeWindow(TEN, TEN + MICROSECOND)]


def test_what_is_renewed_is_what_the_table_says_when_it_lands(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    def days(day: str) -> Callable[[str | None], str]:
        return lambda told: f"{told or ''}{day}"

    def other() -> None:
        nothing = pl.DataFrame(schema=schemas.MINUTE_BARS)  # and there was nothing
        empty = Slice("BINANCE", window(5, 6))
        lake.overwrite(TABLE, nothing, slice=empty, progress={"days": days("b"), "to": at_least(9)})

    late = racing(other)
    late.overwrite(
        TABLE,
        bars(),
        slice=Slice("BINANCE", window(0, 1)),
        progress={"days": days("a"), "to": at_least(7)},
    )

    assert (lake.note(TABLE, "days"), lake.progress(TABLE, "to")) == ("ba", 9)
    assert late.head(TABLE) == 2


def test_an_empty_overwrite_that_says_nothing_new_makes_no_snapshot(lake: Lakehouse) -> None:
    nothing, here = pl.DataFrame(schema=schemas.MINUTE_BARS), Slice("BINANCE", window(0, 1))
    first = lake.overwrite(TABLE, nothing, slice=here, progress={"to": at_least(9)})

    second = lake.overwrite(TABLE, nothing, slice=here, progress={"to": at_least(8)})

    assert first.snapshot_id is not None
    assert (second.snapshot_id, lake.progress(TABLE, "to")) == (None, 9)


# Races: the other writer commits between this one's planning and its commit.


def test_an_append_into_the_slice_meanwhile_is_a_conflict(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    lake.append(TABLE, bars(minutes=2))
    late = bars(TEN + MINUTE, close=9.0, symbols=["BINANCE:NEW"])
    loser = racing(lambda: lake.append(TABLE, late))

    with pytest.raises(CommitConflict, match="Somebody else"):
        loser.overwrite(TABLE, bars(minutes=2, close=2.0), slice=Slice("BINANCE", window(0, 2)))

    assert sorted(closes(lake).values()) == [1.0, 1.0, 1.0, 1.0, 9.0]
    left = plan_cleaning(lake, TABLE, now=NEVER, guard=NO_GUARD).files
    assert left == ()  # it took its files back


def test_an_append_into_an_empty_slice_meanwhile_is_a_conflict(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    loser = racing(lambda: lake.append(TABLE, bars(close=9.0)))

    with pytest.raises(CommitConflict):
        loser.overwrite(TABLE, bars(), slice=Slice("BINANCE", window(0, 1)))

    assert set(closes(lake).values()) == {9.0}


def test_appends_elsewhere_meanwhile_pass(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    lake.append(TABLE, bars(minutes=2))

    def elsewhere() -> None:
        lake.append(TABLE, bars(TEN + 2 * MINUTE, close=3.0), progress={"other": 1})
        lake.append(TABLE, bars(close=3.0, symbols=["OKX:BTCUSDC"]))

    racing(elsewhere).overwrite(
        TABLE,
        bars(minutes=2, close=2.0),
        slice=Slice("BINANCE", window(0, 2)),
        progress={"mine": 1},
    )

    assert sorted(closes(lake).values()) == [2.0] * 4 + [3.0] * 3
    assert (lake.progress(TABLE, "other"), lake.progress(TABLE, "mine")) == (1, 1)


def test_of_two_overwrites_of_one_slice_one_loses(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    lake.append(TABLE, bars())
    slice_ = Slice("BINANCE", window(0, 1))
    loser = racing(lambda: lake.overwrite(TABLE, bars(close=2.0), slice=slice_))

    with pytest.raises(CommitConflict):
        loser.overwrite(TABLE, bars(close=3.0), slice=slice_)
    loser.overwrite(TABLE, bars(close=3.0), slice=slice_)  # it reads again, computes again

    assert set(closes(lake).values()) == {3.0}


def test_an_overwrite_that_emptied_the_slice_meanwhile_is_a_conflict(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    lake.append(TABLE, bars())
    slice_, nothing = Slice("BINANCE", window(0, 1)), pl.DataFrame(schema=schemas.MINUTE_BARS)
    loser = racing(lambda: lake.overwrite(TABLE, nothing, slice=slice_))

    with pytest.raises(CommitConflict, match="Somebody else"):
        loser.overwrite(TABLE, bars(close=3.0), slice=slice_)

    assert closes(lake) == {}


def test_more_commits_meanwhile_than_snapshots_are_kept_pass(
    lake: Lakehouse, bars: Frames, racing: Callable[..., Lakehouse]
) -> None:
    lake.append(TABLE, bars())

    def outlast() -> None:
        for number in range(61):
            lake.append(TABLE, bars(TEN + (number + 1) * MINUTE, symbols=["OKX:A"]))

    racing(outlast).overwrite(TABLE, bars(close=2.0), slice=Slice("BINANCE", window(0, 1)))

    assert closes(lake)["BTCUSDT", 0] == 2.0
    assert len(closes(lake)) == 63
