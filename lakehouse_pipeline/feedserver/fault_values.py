"""Faults of what quotes say: values no market shows, counters and clocks that jump.

Chance is as in `fault_texts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from .faults import Fault
from .noise import struck


@dataclass(kw_only=True)
class BadValues(Fault):
    """A *share* of packets has *value* (null, 1e100, …) in place of each of *fields* it carries."""

    fields: list[str]
    value: Any = None  # any JSON value
    share: float = 0.1

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        if not struck(self.share, symbol, values):
            return values
        return {name: self.value if name in self.fields else was for name, was in values.items()}


@dataclass(kw_only=True)
class VolumeBackwards(Fault):
    """A *share* of packets tells a volume smaller by the factor *by*; the next tells it right."""

    by: float = 0.01
    share: float = 0.1

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        if "volume" not in values or not struck(self.share, symbol, values):
            return values
        return values | {"volume": values["volume"] * (1.0 - self.by)}


@dataclass(kw_only=True)
class ClockStep(Fault):
    """The clock that stamps trades is *by* ahead."""

    by: timedelta = timedelta(seconds=30)

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # all symbols
        if "lp_time" not in values:
            return values
        return values | {"lp_time": values["lp_time"] + int(self.by.total_seconds())}


@dataclass(kw_only=True)
class DayRoll(Fault):
    """Each symbol's day begins anew with its first trade: daily fields, and volume from zero."""

    _day: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        volume = values.get("volume")
        if volume is None:
            return values
        if symbol not in self._day:
            if "lp" not in values:
                return values
            price, opened = values["lp"], values["lp_time"]
            prices = dict.fromkeys(("open_price", "high_price", "low_price"), price)
            day = {**prices, "prev_close_price": price, "open_time": opened}
            self._day[symbol] = {"volume": volume}
            return values | day | {"volume": 0.0}
        return values | {"volume": max(0.0, round(volume - self._day[symbol]["volume"], 8))}
