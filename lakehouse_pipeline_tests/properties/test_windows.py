"""Laws of interval algebra."""

from __future__ import annotations

from datetime import timedelta
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


@given(st.integers(0, 10**9), st.integers(1, 100_000))
def test_floor_and_ceil_enclose_on_the_grid(microseconds: int, step: int):
    instant, grid = START + timedelta(microseconds=microseconds), timedelta(microseconds=step)
    low, high = floor(instant, grid), ceil(instant, grid)

    assert low <= instant <= high
    assert high - low in (timedelta(0), grid)
    assert floor(low, grid) == low
    assert ceil(high, grid) == high
