"""Laws of interval algebra."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.market.windows import TimeWindow, ceil, floor, intersect, subtract, union
from lakehouse_pipeline_tests.scripted import START, window

windows = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda p: window(p[0], p[0] + p[1])),
    max_size=8,
)


def instants(of: list[TimeWindow]) -> set[int]:
    """The whole seconds inside: the same sets, told another way."""
    return {
        second
        for second in range(100)
        for w in of
        if w.start <= START + timedelta(seconds=second) < w.end
    }


@given(windows, windows)
def test_each_operation_is_that_of_sets(a: list[TimeWindow], b: list[TimeWindow]):
    assert instants(union(a + b)) == instants(a) | instants(b)
    assert instants(intersect(a, b)) == instants(a) & instants(b)
    assert instants(subtract(a, b)) == instants(a) - instants(b)


@given(windows, windows)
def test_results_are_sorted_disjoint_and_never_touch_without_need(
    a: list[TimeWindow], b: list[TimeWindow]
):
    for result in (union(a), intersect(a, b), subtract(a, b)):
        assert result == sorted(result)
        assert all(x.end <= y.start for x, y in pairwise(result))
    assert union(union(a)) == union(a)


@given(windows, windows)
def test_what_is_taken_and_what_is_left_make_the_whole(a: list[TimeWindow], b: list[TimeWindow]):
    assert union(subtract(a, b) + intersect(a, b)) == union(a)


def test_taking_away_costs_as_much_as_there_is():
    """A month of coverage has thousands of holes: each is looked at about once."""

    class Counted(datetime):
        compared = 0

        def __lt__(self, other: datetime) -> bool:
            Counted.compared += 1
            return datetime.__lt__(self, other)

        def __le__(self, other: datetime) -> bool:
            Counted.compared += 1
            return datetime.__le__(self, other)

        def __ge__(self, other: datetime) -> bool:
            Counted.compared += 1
            return datetime.__ge__(self, other)

        def __gt__(self, other: datetime) -> bool:
            Counted.compared += 1
            return datetime.__gt__(self, other)

    def at(minute: int) -> Counted:
        return Counted(2026, 1, 1 + minute // 1440, minute // 60 % 24, minute % 60, tzinfo=UTC)

    count = 2_000
    whole = [TimeWindow(at(10 * n), at(10 * n + 9)) for n in range(count)]
    holes = [TimeWindow(at(10 * n + 3), at(10 * n + 5)) for n in range(count)]
    Counted.compared = 0

    assert len(subtract(whole, holes)) == 2 * count
    assert Counted.compared < 30 * count


@given(st.integers(0, 10**9), st.integers(1, 100_000))
def test_floor_and_ceil_enclose_on_the_grid(microseconds: int, step: int):
    instant, grid = START + timedelta(microseconds=microseconds), timedelta(microseconds=step)
    low, high = floor(instant, grid), ceil(instant, grid)

    assert low <= instant <= high
    assert high - low in (timedelta(0), grid)
    assert floor(low, grid) == low
    assert ceil(high, grid) == high
