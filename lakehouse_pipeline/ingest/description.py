"""What the feed says a symbol is: precision, currency, type, mode of delivery.

It comes with the first snapshot, sometimes in parts, and again at any time. Told once a session
and whenever it changes, it gives ``market.symbols`` its rows. Add a wire key here, and to the
fields asked for, when that table needs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FACTS = frozenset(
    {
        *("currency_code", "description", "exchange", "minmov", "minmove2", "original_name"),
        *("pricescale", "pro_name", "short_name", "type", "typespecs", "update_mode"),
    }
)
LONGEST = 200  # characters of a text; a real description has a few dozen


class Description:
    """What one symbol's session has been told, and what of it was passed on."""

    __slots__ = ("_facts", "_passed_on")

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}  # Any: as on the wire
        self._passed_on: dict[str, Any] = {}

    def learn(self, values: Mapping[str, Any]) -> None:
        """Note the facts among an update's values."""
        for key in FACTS & values.keys():
            self._facts[key] = _bearable(values[key])

    def news(self) -> str | None:
        """Return all facts as JSON if any changed since this was last asked, else None."""
        if self._facts == self._passed_on:
            return None
        self._passed_on = dict(self._facts)
        return json.dumps(self._facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _bearable(value: Any) -> Any:
    """Return a value that can be stored: no lone surrogate, no text without end."""
    match value:
        case str():
            return value[:LONGEST].encode("utf-8", "replace").decode()
        case list():
            return [_bearable(part) for part in value[:LONGEST]]
        case dict():
            return None  # no fact has parts with names
        case _:
            return value
