"""How bars and study values look in chart packets, after real captures.

In each bar ``i`` comes before ``v``: several clients read by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .history import Bar

NODE = "feed-server-1"
_FIRST, _MINUTE, _FIVE_MINUTES, _HOUR, _DAY = 10, 20, 21, 30, 40


def history(turnaround: str, bars: Sequence[Bar], bar_close_time: int) -> dict[str, Any]:
    """Return the content of a series with all its *bars*."""
    return {
        "node": NODE,
        "s": [{"i": i, "v": list(bar)} for i, bar in enumerate(bars)],
        "ns": {"d": "", "indexes": []},
        "t": turnaround,
        "lbs": {"bar_close_time": bar_close_time},
    }


def live(turnaround: str, index: int, bar: Bar, bar_close_time: int) -> dict[str, Any]:
    """Return the content of a series of which one bar changed or is new."""
    return {
        "s": [{"i": index, "v": list(bar)}],
        "ns": {"d": "", "indexes": "nochange"},
        "t": turnaround,
        "lbs": {"bar_close_time": bar_close_time},
    }


def study(turnaround: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of a study; each of *rows* holds ``i`` and ``v``."""
    return {
        "node": NODE,
        "st": rows,
        "ns": {"d": "", "indexes": "nochange"},
        "t": turnaround,
    }


def timescale(bars: Sequence[Bar], first: int) -> dict[str, Any]:
    """Return the time axis of *bars*, the first of which has the index *first*."""
    return {
        "index": first,
        "zoffset": 0,
        "changes": [bar.time for bar in bars],
        "marks": [
            [_weight(int(bar.time), is_first=i == 0), int(bar.time), first + i]
            for i, bar in enumerate(bars)
        ],
        "index_diff": [],
    }


def _weight(time: int, *, is_first: bool) -> int:
    """Return how much a time deserves a label on the axis."""
    if is_first:
        return _FIRST
    for length, weight in ((86_400, _DAY), (3_600, _HOUR), (300, _FIVE_MINUTES)):
        if time % length == 0:
            return weight
    return _MINUTE
