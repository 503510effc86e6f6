"""Chart resolutions: how they are written and which stretch of time each bar covers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .access import FREE_RESOLUTIONS, Plan

DAY = timedelta(days=1)
_CODE = re.compile(r"([1-9][0-9]{0,3})?([SDWM]?)")
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Resolution:
    """*count* units of seconds (S), minutes (""), days (D), weeks (W) or months (M)."""

    count: int
    unit: str

    @property
    def length(self) -> timedelta:
        """The length of a bar; of a month, a generous one."""
        units = {"S": timedelta(seconds=1), "": timedelta(minutes=1), "D": DAY, "W": 7 * DAY}
        return self.count * units.get(self.unit, 31 * DAY)

    @property
    def step(self) -> timedelta:
        """The length of the market's bars it is made of."""
        return DAY if self.unit in ("W", "M") else self.length

    def floor(self, instant: datetime) -> datetime:
        """Return when the bar that holds *instant* opens."""
        if self.unit == "M":
            months = (instant.year * 12 + instant.month - 1) // self.count * self.count
            return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)
        origin = _MONDAY if self.unit == "W" else datetime(1970, 1, 1, tzinfo=UTC)
        return instant - (instant - origin) % self.length

    def after(self, opened: datetime) -> datetime:
        """Return when the bar that opened at *opened* closes."""
        if self.unit != "M":
            return opened + self.length
        return self.floor(opened + self.count * timedelta(days=31) + timedelta(days=1))

    def refusal(self, plan: Plan) -> str | None:
        """Return why *plan* does not give this resolution; None when it does."""
        if plan.any_resolution or self.unit in ("D", "W", "M"):
            return None
        if self.unit == "S":
            return "seconds_not_entitled"
        return None if str(self.count) in FREE_RESOLUTIONS else "custom_resolution"


def parse_resolution(code: str) -> Resolution | None:
    """Return what *code* (``1``, ``240``, ``1S``, ``D``, ``1W``) means; None when it is none."""
    match = _CODE.fullmatch(code)
    if not code or match is None or (match[1] is None and match[2] == "S"):
        return None
    return Resolution(int(match[1] or 1), match[2])
