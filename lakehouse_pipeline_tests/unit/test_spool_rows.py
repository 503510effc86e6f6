"""From spooled rows to frames: types, numbers, and marks that touch."""

from __future__ import annotations

from lakehouse_pipeline.ingest.rows import (
    COVERAGE,
    INDICATORS,
    PIECE,
    QUOTES,
    TARGETS,
    build_frame,
    instant,
    mark,
    merge_marks,
    micros,
)
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.schemas import QUOTES as QUOTE_SCHEMA


def row(*args, **kwargs):
    return mark(*args, **kwargs)[1]


def test_touching_alive_marks_of_a_session_become_one_with_the_last_number():
    merged = merge_marks(
        [
            (1, row("a", Mark.OPENED, 0, 0)),
            (2, row("a", Mark.ALIVE, 0, 10)),
            (3, row("b", Mark.ALIVE, 0, 12)),
            (4, row("a", Mark.ALIVE, 10, 20)),
            (5, row("a", Mark.ALIVE, 30, 40)),
            (6, row("a", Mark.ENDED, 40, 40, reason="closed")),
        ]
    )

    assert [(number, found[0], found[1], found[3], found[4]) for number, found in merged] == [
        (1, "a", "opened", 0, 0),
        (4, "a", "alive", 0, 20),
        (3, "b", "alive", 0, 12),
        (5, "a", "alive", 30, 40),
        (6, "a", "ended", 40, 40),
    ]


def test_touching_shed_marks_add_their_counts():
    merged = merge_marks(
        [
            (1, row("a", Mark.SHED, 0, 10, detail="3")),
            (2, row("a", Mark.SHED, 10, 20, detail="4")),
        ]
    )

    assert [(number, found[3], found[4], found[6]) for number, found in merged] == [(2, 0, 20, "7")]


def test_subscriptions_are_never_joined():
    marks = [(n, row("a", Mark.SUBSCRIBED, 5, 5, symbol=s)) for n, s in ((1, "X:A"), (2, "X:B"))]

    assert merge_marks(marks) == marks


def test_a_frame_has_the_tables_types_whatever_mix_of_numbers_came():
    times = (1_700_000_000_000_000, 1_700_000_000_500_000)
    values = [None] * 14
    rows = [
        (7, ["X:A", times[0], times[1], "price", "last_price", 100, *values, "s"]),
        (9, ["X:A", times[0], times[1], "price", "last_price", 100.5, *values, "s"]),
    ]

    frame = build_frame(TARGETS[QUOTES], rows, exchange="X", writer_id="w")

    assert frame.schema == QUOTE_SCHEMA
    assert frame["sequence"].to_list() == [7, 9]
    assert frame["last_price"].to_list() == [100.0, 100.5]
    assert frame["received_at"][0] == instant(times[1])
    assert set(frame["writer_id"]) == {"w"}


def test_a_long_frame_is_whole_and_in_order():
    count = 2 * PIECE + 1
    rows = [
        (n, ("X:A", n, n, "price", "last_price", float(n), *[None] * 14, "s")) for n in range(count)
    ]

    frame = build_frame(TARGETS[QUOTES], rows, exchange="X", writer_id="w")

    assert frame["sequence"].to_list() == list(range(count))
    assert frame["last_price"].to_list() == [float(n) for n in range(count)]


def test_times_are_exact_to_the_microsecond():
    assert micros(instant(1_723_161_599_999_999)) == 1_723_161_599_999_999


def test_every_target_has_a_table():
    assert TARGETS[COVERAGE].table == "raw.coverage"
    assert next(iter(TARGETS)) == QUOTES  # committed first


def test_rows_spooled_before_a_column_was_appended_have_none_of_it():
    old = ("X:A", 1, 2, "rsi", "length=14", "rsi", 50.0, "s1")

    frame = build_frame(
        TARGETS[INDICATORS], [(1, old), (2, (*old, 7))], exchange="X", writer_id="w"
    )

    assert frame["chart_bars"].to_list() == [None, 7]
    assert frame["session_id"].to_list() == ["s1", "s1"]
