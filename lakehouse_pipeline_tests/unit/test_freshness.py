"""Which days are due: older than what they were built from, or never built as a whole."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.build.freshness import COVERAGE, HISTORY, QUOTES, Notes, due_days

TODAY = date(2026, 1, 10)
YESTERDAY, LONG_AGO = date(2026, 1, 9), date(2024, 8, 8)
TABLE = "market.bars_1m"


def due(newest, notes: Notes) -> list[tuple[date, str]]:
    return [(found.day, found.reason) for found in due_days(newest, {TABLE: notes}, closed=TODAY)]


def test_a_recorded_day_that_was_never_built_is_due():
    newest = {QUOTES: {YESTERDAY: 7, TODAY: 8}, COVERAGE: {YESTERDAY: 6, TODAY: 9}}

    assert due(newest, Notes()) == [(YESTERDAY, f"{TABLE} was never built as a whole")]


def test_a_day_that_has_read_all_is_not_due():
    notes = Notes().with_day(YESTERDAY, {QUOTES: 7, COVERAGE: 6, HISTORY: 0})

    assert due({QUOTES: {YESTERDAY: 7}, COVERAGE: {YESTERDAY: 6}}, notes) == []


def test_rows_that_land_late_make_their_day_due_however_old_it_is():
    notes = Notes().with_day(YESTERDAY, {QUOTES: 7}).with_day(LONG_AGO, {QUOTES: 7})

    assert due({QUOTES: {LONG_AGO: 8, YESTERDAY: 7}}, notes) == [
        (LONG_AGO, f"{TABLE} is older than {QUOTES}")
    ]


def test_rows_that_land_late_make_the_day_after_due_too_which_begins_with_them():
    days = [YESTERDAY - timedelta(days=back) for back in (3, 2, 1)]
    notes = Notes()
    for day in days:
        notes = notes.with_day(day, {QUOTES: 7})

    newest = {QUOTES: dict.fromkeys(days, 7) | {days[0]: 8}}
    assert [day for day, _ in due(newest, notes)] == days[:2]

    notes = notes.with_day(days[0], {QUOTES: 8})
    assert [day for day, _ in due(newest, notes)] == [days[1]]

    assert due(newest, notes.with_day(days[1], {QUOTES: 8})) == []


def test_a_day_whose_build_reads_days_before_it_is_due_with_them_and_after_them():
    notes = Notes().with_day(LONG_AGO, {QUOTES: 7}, reach=2)
    for days in range(1, 6):
        notes = notes.with_day(LONG_AGO + timedelta(days=days), {QUOTES: 7}, reach=2)

    newest = {QUOTES: {LONG_AGO + timedelta(days=days): 8 - (days != 1) for days in range(6)}}

    # The fourth reads the second's bars, and those begin with the first's rows.
    assert [(day - LONG_AGO).days for day, _ in due(newest, notes)] == [1, 2, 3, 4]


def test_official_bars_alone_are_no_recording_of_a_day():
    assert due({HISTORY: {YESTERDAY: 3}}, Notes()) == []


def test_history_that_comes_after_a_day_makes_it_due():
    notes = Notes().with_day(YESTERDAY, {QUOTES: 7, HISTORY: 1})

    assert due({QUOTES: {YESTERDAY: 7}, HISTORY: {YESTERDAY: 2}}, notes) == [
        (YESTERDAY, f"{TABLE} is older than {HISTORY}")
    ]


def test_days_whose_note_was_dropped_are_judged_by_the_last_one_dropped():
    notes = Notes()
    for back in range(70):
        notes = notes.with_day(YESTERDAY - timedelta(days=back), {QUOTES: back + 1}, kept=64)
    old, older = YESTERDAY - timedelta(days=1), YESTERDAY - timedelta(days=3)

    assert len(notes.days) == 64
    assert due({QUOTES: {old: 2, older: 99}}, notes) == [(older, f"{TABLE} is older than {QUOTES}")]


sequences = st.dictionaries(st.sampled_from([QUOTES, COVERAGE, HISTORY]), st.integers(0, 99))


@given(st.dictionaries(st.dates(), sequences), sequences)
def test_notes_survive_being_written(days, floor):
    notes = Notes(days, floor, reach=len(days))

    assert Notes.parse(notes.dump()) == notes
    assert Notes.parse('{"days":{},"floor":{}}') == Notes()  # of a lake written before reach was
    assert Notes.parse(None) == Notes()


@given(st.lists(st.tuples(st.dates(max_value=YESTERDAY), st.integers(1, 99)), max_size=30))
def test_a_day_just_built_from_all_there_is_is_never_due(builds):
    notes, newest = Notes(), {QUOTES: {}}
    for sequence, (day, _) in enumerate(builds, start=1):
        newest[QUOTES][day] = sequence
        notes = notes.with_day(day, {QUOTES: sequence}, kept=5)

        assert day not in {found for found, _ in due(newest, notes)}
