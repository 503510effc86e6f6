"""How long to wait before connecting, or asking for anything else, again.

Connecting has full jitter: a uniformly random part of a limit that doubles with each failure in a
row, so that workers that lost the feed together do not come back together. A feed that said no
waits long.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TypeVar

from lakehouse_pipeline.errors import (
    AuthError,
    EntitlementError,
    FeedError,
    HandshakeRefused,
    LimitError,
)

FIRST = timedelta(seconds=1)
STEADY = timedelta(seconds=10)  # a session this long was no failed attempt
REFUSALS = (403, 429)

Length = TypeVar("Length", int, timedelta)


class Backoff:
    """Counts the failures in a row of one connection loop."""

    def __init__(self, *, longest: timedelta, refused: timedelta) -> None:
        self._longest = longest
        self._refused = refused
        self._failures = 0

    def after(self, error: FeedError, *, lasted: timedelta) -> timedelta:
        """Return the pause after an attempt that *lasted* so long and ended by *error*."""
        pause = self.after_loss(lasted=lasted)
        if said_no(error):
            return self._refused * random.uniform(1, 1.2)  # noqa: S311  # spreads load, no secret
        return pause

    def after_loss(self, *, lasted: timedelta) -> timedelta:
        """Return the pause after an attempt that ended by nothing the next one will repeat."""
        self._failures = 0 if lasted >= STEADY else self._failures + 1
        limit = doubled(FIRST, self._failures, longest=self._longest)
        return timedelta(seconds=random.uniform(0, limit.total_seconds()))  # noqa: S311  # the same


def doubled(first: Length, failures: int, *, longest: Length) -> Length:
    """Return *first*, doubled for each of *failures* in a row, and *longest* at most."""
    factor: int = 2 ** min(failures, 20)
    return min(first * factor, longest)


def said_no(error: FeedError) -> bool:
    """Tell a refusal, which hammering makes worse, from a lost connection."""
    if isinstance(error, HandshakeRefused):
        return error.status in REFUSALS
    return isinstance(error, AuthError | LimitError | EntitlementError)
