"""One symbol on one session: the row its next update completes, and what is known of its flow.

The merged snapshot is kept in the shape of a row, so that an update sets what it carries and the
row is a copy. A key that is absent is unchanged, None takes a value away. What an update *means*
belongs to ``market.quotes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from lakehouse_pipeline.market.quotes import COLUMNS, OBSERVING, changed_columns, classify

from .cadence import Cadence
from .description import Description
from .rows import QUOTES, TARGETS

_ROW = TARGETS[QUOTES].columns
EVENT_TIME, RECEIVED_AT, KIND, CHANGED = map(
    _ROW.index, ("event_time", "received_at", "kind", "changed")
)
PLACES: Mapping[str, int] = {key: _ROW.index(column) for key, column in COLUMNS.items()}
"""Where in a row the value of a wire key is."""
LAST_TIME = PLACES["lp_time"]

Meaning = tuple[str, bool, str]  # the kind, whether it happened at lp_time, what it carried


class Line:
    """One symbol; its times are received times in epoch microseconds."""

    __slots__ = (
        *("awaited", "cadence", "description", "has_price", "last_data", "moment", "refused"),
        *("restoring", "row"),
    )

    def __init__(self, name: str, session_id: str) -> None:
        self.row: list[Any] = [None] * len(_ROW)  # Any: one row's values differ in type
        self.row[_ROW.index("symbol")] = name
        self.row[_ROW.index("session_id")] = session_id
        self.cadence = Cadence()
        self.description = Description()
        self.awaited = True  # no data since it was subscribed, stalled or was refused
        self.last_data = 0
        self.moment = 0  # the last data the cadence has learnt of
        self.restoring = True
        self.has_price = False
        self.refused = False

    def await_again(self) -> None:
        """Take the next data for a first load, with which coverage begins anew."""
        self.awaited = self.restoring = True
        self.has_price = False

    def merge(self, values: Mapping[str, Any], at: int) -> list[Any]:
        """Take in an update, its times in microseconds, and return its row."""
        row = self.row
        for key, value in values.items():
            row[PLACES[key]] = value
        kind, happened, changed = meaning(frozenset(values), self.restoring)
        last_time = row[LAST_TIME] if happened else None
        row[EVENT_TIME] = at if last_time is None else last_time
        row[RECEIVED_AT], row[KIND], row[CHANGED] = at, kind, changed
        return row.copy()


@lru_cache(maxsize=4096)  # a feed uses a few dozen sets of keys
def meaning(changed: frozenset[str], restoring: bool) -> Meaning:  # noqa: FBT001  # cache key
    """Return what an update that carried the wire keys *changed* is."""
    kind = classify(changed, restoring=restoring)
    return kind.value, kind in OBSERVING, changed_columns(changed)
