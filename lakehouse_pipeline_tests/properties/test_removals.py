"""Who asks what was taken away since a commit is told of all of it, however little is kept."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.lake.removals import MICROSECOND, Removals
from lakehouse_pipeline.market.windows import TimeWindow, subtract

START = datetime(2026, 1, 5, tzinfo=UTC)

windows = st.builds(
    lambda first, length: TimeWindow(
        START + first * MICROSECOND, START + (first + length) * MICROSECOND
    ),
    st.integers(0, 50),
    st.integers(1, 20),
)


@given(st.lists(windows, max_size=20), st.integers(1, 4), st.integers(0, 20))
def test_nothing_taken_away_since_is_left_out(
    taken: list[TimeWindow], kept: int, since: int
) -> None:
    removals = Removals()
    for sequence, window in enumerate(taken, start=1):
        removals = removals.noting(sequence, window, kept=kept)

    told = removals.since(since)

    assert subtract(taken[since:], told) == []
    assert len(removals.windows) <= kept
    assert Removals.parse(removals.dump()) == removals


@given(st.lists(windows, max_size=4))
def test_what_is_still_kept_is_told_exactly(taken: list[TimeWindow]) -> None:
    removals = Removals()
    for sequence, window in enumerate(taken, start=1):
        removals = removals.noting(sequence, window, kept=4)

    assert removals.since(len(taken)) == []
    for since in range(len(taken)):
        assert set(removals.since(since)) <= set(taken[since:])
