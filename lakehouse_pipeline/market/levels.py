"""A counter's high-water mark, and the spikes that must not raise it.

Levels are pure numbers here; what a rise means and to whom it belongs is ``volume``'s.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from lakehouse_pipeline.market.arrays import Bools, Floats, Ints

SPIKE = 5  # a jump of at most so many observations may be revoked by those that follow


def high_water(value: Floats, group: Ints, anchored: Bools) -> tuple[Floats, Bools]:
    """Return the high-water mark after each observation and which observations were revoked."""
    level = value.copy()
    revoked = np.zeros(value.size, dtype=np.bool_)
    fell = (value[1:] < value[:-1]) & (group[1:] == group[:-1])
    for number in np.unique(group[1:][fell]):  # a healthy day has none
        a, b = np.searchsorted(group, [number, number + 1])
        revoked[a:b] = _revoked(value[a:b].tolist(), 0.0 if anchored[a] else None)
        level[a:b] = np.maximum.accumulate(np.where(revoked[a:b], 0.0, value[a:b]))
    return level, revoked


def _revoked(values: list[float], ground: float | None) -> list[bool]:
    """Return which observations of one counter day were a spike that later ones take back.

    A fall has two stories: the few values above were wrong, or the fall is. The spike must be
    short, and more values must stay below it than stood in it; if the data end before that is
    clear, it is a spike if the fall gave back most of the jump.
    """
    revoked = [False] * len(values)
    accepted: list[float] = []  # never falls
    where: list[int] = []
    for position, value in enumerate(values):
        above = len(accepted) - bisect_right(accepted, value)
        if above > SPIKE:
            continue
        if above:
            floor = accepted[-above - 1] if len(accepted) > above else ground
            if not _is_spike(values, position, accepted[-1], floor, above):
                continue
            for taken_back in where[-above:]:
                revoked[taken_back] = True
            del accepted[-above:], where[-above:]
        accepted.append(value)
        where.append(position)
    return revoked


def _is_spike(
    values: list[float], position: int, top: float, floor: float | None, above: int
) -> bool:
    enough = above + 1 if floor is not None else above + 1 + SPIKE
    following = values[position : position + enough]
    below = next((n for n, value in enumerate(following) if value >= top), len(following))
    if below == enough:
        return True
    open_end = below == len(following)
    return open_end and floor is not None and values[position] - floor < top - values[position]
