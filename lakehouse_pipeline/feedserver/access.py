"""Who a client is by its token, and what its subscription allows.

The anonymous limits are those reported of the real feed. How a refusal reads on the wire belongs
to the sessions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

ANONYMOUS_TOKENS = frozenset({"unauthorized_user_token", "widget_user_token"})
BASIC_PREFIX = "basic:"
# What anonymous access can ask for; everything else needs a plan.
FREE_RESOLUTIONS = frozenset({"1", "3", "5", "15", "30", "45", "60", "120", "180", "240"})


@dataclass(frozen=True, slots=True)
class Plan:
    """*bars* is nominal: histories are cut at the next stored block beyond it."""

    bars: int
    series: int  # in one chart session
    pine_studies: int  # in one chart session
    any_resolution: bool  # seconds and odd minutes too


ANONYMOUS = Plan(bars=5_000, series=1, pine_studies=0, any_resolution=False)
ANONYMOUS_WITH_STUDIES = Plan(bars=5_000, series=1, pine_studies=25, any_resolution=False)
BASIC = Plan(bars=5_000, series=10, pine_studies=2, any_resolution=False)
PREMIUM = Plan(bars=20_000, series=10, pine_studies=25, any_resolution=True)


class Access:
    """Judges tokens.

    Without *tokens* every token is good and studies are free for all, because many clients know
    no token; with *tokens* (or *strict*) an anonymous client may use no Pine study, and another
    token than these is refused. A token written ``basic:T`` gives *T* the basic plan.
    """

    def __init__(self, tokens: Collection[str], *, strict: bool) -> None:
        self.anonymous = ANONYMOUS if tokens or strict else ANONYMOUS_WITH_STUDIES
        self._plans = {
            token.removeprefix(BASIC_PREFIX): BASIC if token.startswith(BASIC_PREFIX) else PREMIUM
            for token in tokens
        }

    def plan(self, token: str) -> Plan | None:
        """Return what *token* allows; None when it is bad."""
        if token in ANONYMOUS_TOKENS:
            return self.anonymous
        return self._plans.get(token) if self._plans else PREMIUM
