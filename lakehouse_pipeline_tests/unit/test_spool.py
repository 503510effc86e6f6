"""The spool: durable, numbered, held by one, honest about damage."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import SpoolFull, SpoolLocked
from lakehouse_pipeline.ingest.adoption import settle, take_free
from lakehouse_pipeline.ingest.rows import COVERAGE, QUOTES, REJECTS, Entry, mark
from lakehouse_pipeline.ingest.salvage import SAFE_DISTANCE
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.market.coverage import Ending, Mark


@pytest.fixture(autouse=True)
def _close_spools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An open SQLite connection left to the collector is a warning in newer Pythons."""
    made: list[Spool] = []
    init = Spool.__init__

    def noting(spool: Spool, path: Path) -> None:
        init(spool, path)
        made.append(spool)

    monkeypatch.setattr(Spool, "__init__", noting)
    yield
    for spool in made:
        spool.close()


def quote(price: float, at: int = 1_000_000) -> Entry:
    return QUOTES, ("X:A", at, at, "price", "last_price", price, *[None] * 14, "session-1")


def entries_of(spool: Spool, after: int = 0) -> list[tuple[int, str, list]]:
    return [
        (batch.first + index, target, row)
        for batch in spool.read(after, 1_000_000)
        for index, (target, row) in enumerate(batch.entries)
    ]


def sequences_of(spool: Spool) -> list[int]:
    return [sequence for sequence, _, _ in entries_of(spool)]


def test_entries_come_back_in_order_with_their_numbers_after_reopening(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([quote(1.5), quote(2.5)])
    spool.append([quote(3.5)])
    spool.close()

    reopened = Spool(spool.path)

    assert [(number, row[5]) for number, _, row in entries_of(reopened)] == [
        (1, 1.5),
        (2, 2.5),
        (3, 3.5),
    ]
    assert reopened.writer_id == spool.writer_id


def test_numbers_go_on_after_everything_is_forgotten(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([quote(1), quote(2)])
    spool.forget(2)
    spool.close()

    reopened = Spool(spool.path)

    assert entries_of(reopened) == []
    assert reopened.append([quote(3)]) == 3


def test_forgetting_keeps_a_batch_that_is_only_partly_committed(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([quote(1), quote(2)])

    spool.forget(1)

    assert sequences_of(spool) == [1, 2]
    assert spool.rows_after(1) == 1


def test_reading_is_bounded_and_goes_on_where_it_stopped(tmp_path: Path):
    spool = Spool.create(tmp_path)
    for price in range(1, 7):
        spool.append([quote(price), quote(price)])

    first = spool.read(0, 3)
    rest = spool.read(first[-1].last, 100)

    assert [batch.last for batch in first] == [2, 4]
    assert [batch.last for batch in rest] == [6, 8, 10, 12]


def test_a_spool_is_held_by_one(tmp_path: Path):
    spool = Spool.create(tmp_path)

    with pytest.raises(SpoolLocked):
        Spool(spool.path)

    spool.close()
    Spool(spool.path).close()


def test_a_full_disk_is_an_error_of_its_own_and_leaves_the_spool_intact(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([quote(1)])
    spool._write.execute("PRAGMA max_page_count = 20")

    with pytest.raises(SpoolFull):
        spool.append([quote(float(n)) for n in range(10_000)])

    assert spool.last_sequence == 1
    assert sequences_of(spool) == [1]
    assert spool.append([quote(2)]) == 2


def test_sessions_without_an_end_are_remembered_beyond_their_rows(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([mark("a", Mark.OPENED, 10, 10), mark("b", Mark.OPENED, 11, 11)])
    spool.append([mark("a", Mark.ALIVE, 10, 90), mark("b", Mark.ENDED, 50, 50, reason="closed")])
    spool.forget(spool.last_sequence)
    spool.close()

    assert Spool(spool.path).open_sessions == {"a": 90}


def test_settling_a_free_spool_ends_its_crashed_sessions_once(tmp_path: Path):
    crashed = Spool.create(tmp_path)
    crashed.append([mark("a", Mark.OPENED, 10, 10), mark("a", Mark.ALIVE, 10, 90)])
    crashed.close()

    (taken,) = take_free(tmp_path)
    settle(taken, 0)
    settle(taken, 0)

    assert taken.writer_id == crashed.writer_id
    assert entries_of(taken)[2:] == [
        (3, COVERAGE, ("a", "ended", None, 90, 90, Ending.CRASHED.value, None))
    ]
    assert taken.open_sessions == {}


def test_a_spool_that_is_held_is_left_alone(tmp_path: Path):
    held = Spool.create(tmp_path)
    free = Spool.create(tmp_path)
    free.close()

    taken = take_free(tmp_path)

    assert [spool.writer_id for spool in taken] == [free.writer_id]
    assert held.append([quote(1)]) == 1


def test_a_spool_of_another_version_is_left_as_it_is_and_the_others_are_taken(tmp_path: Path):
    foreign, ours = Spool.create(tmp_path), Spool.create(tmp_path)
    foreign.append([quote(1.5)])
    ours.append([quote(2.5)])
    foreign._write.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    foreign.close()
    ours.close()
    content = foreign.path.read_bytes()

    (taken,) = take_free(tmp_path)

    assert taken.writer_id == ours.writer_id
    taken.close()
    assert foreign.path.read_bytes() == content


def test_a_number_the_lake_knows_is_not_given_out_again(tmp_path: Path):
    Spool.create(tmp_path).close()

    (taken,) = take_free(tmp_path)
    settle(taken, 500)

    assert taken.append([quote(1)]) == 501


def damage(path: Path, last: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE batches SET payload = X'00' WHERE last = ?", (last,))
    connection.close()


def test_a_damaged_batch_is_left_out_and_reported(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([quote(1, at=100), quote(2, at=200)])
    spool.append([quote(3, at=300)])
    spool.append([quote(4, at=400), mark("session-1", Mark.ALIVE, 200, 450)])
    spool.close()
    damage(spool.path, 3)

    (own,) = take_free(tmp_path)

    entries = entries_of(own)
    assert own.writer_id == spool.writer_id
    assert [row[5] for _, target, row in entries if target == QUOTES] == [1, 2, 4]
    assert [row[3] for _, target, row in entries if target == REJECTS] == ["spool_damaged"]
    (hole,) = [row for _, target, row in entries if target == COVERAGE and row[1] == "shed"]
    assert hole[3:6] == (200, 450, "spool_damaged")
    assert [sequence for sequence, _, _ in entries][:4] == [1, 2, 4, 5]
    assert own.last_sequence > SAFE_DISTANCE
    assert list(tmp_path.glob("*.damaged-*"))


def test_a_torn_file_starts_a_worker_all_the_same_and_is_set_aside(tmp_path: Path):
    spool = Spool.create(tmp_path)
    spool.append([quote(1)])
    spool.close()
    whole = spool.path.read_bytes()
    spool.path.write_bytes(b"\0" * 200 + whole[200:])

    (taken,) = take_free(tmp_path)

    assert [row[3] for _, target, row in entries_of(taken) if target == REJECTS] == [
        "spool_damaged"
    ]
    assert taken.last_sequence >= SAFE_DISTANCE
    taken.close()
    (again,) = take_free(tmp_path)
    assert again.writer_id == spool.writer_id
    assert [row[3] for _, _, row in entries_of(again)] == ["spool_damaged"]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_a_spool_drained_and_deleted_is_gone_with_its_lock(tmp_path: Path):
    spool = Spool.create(tmp_path)

    spool.delete()

    assert list(tmp_path.iterdir()) == []
