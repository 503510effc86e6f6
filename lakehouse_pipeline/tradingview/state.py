"""One symbol's quote on one session: partial updates merged into what is known now.

A key that is absent from an update is unchanged; an explicit None takes the value away. A large
update is no reset: static blocks are sent again at any time. A new session starts a new state.
What the merged values mean belongs to ``market.quotes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class QuoteState:
    """The merged snapshot of one symbol, keyed as on the wire."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}  # as QuoteUpdate.values

    def merge(self, values: Mapping[str, Any]) -> frozenset[str]:
        """Take an update in and return the keys it carried, which the feed sends when changed."""
        self.values.update(values)
        return frozenset(values)
