"""A server that ends by itself is started again: later each time, and not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.stack.restarts import FIRST, LONGEST, MOST, WITHIN, Restarts


def test_each_end_waits_twice_as_long_and_too_many_are_given_up():
    restarts = Restarts()

    waits = [restarts.ended(100.0 + number) for number in range(MOST)]

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, None]


def test_ends_of_long_ago_are_forgotten():
    restarts = Restarts()
    for number in range(MOST - 1):
        restarts.ended(float(number))

    assert restarts.ended(MOST + WITHIN) == FIRST
    assert restarts.due == MOST + WITHIN + FIRST


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50))
def test_it_never_waits_longer_than_it_says_and_is_never_given_up_early(pauses: list[float]):
    restarts, now, ends = Restarts(), 0.0, []
    for pause in pauses:
        now += pause
        ends.append(now)
        wait = restarts.ended(now)
        recent = [at for at in ends if now - at < WITHIN]
        assert (wait is None) == (len(recent) >= MOST)
        assert wait is None or FIRST <= wait <= LONGEST
