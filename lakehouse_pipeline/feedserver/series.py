"""One series of a chart: its bars as told to the client."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from .history import Bar
from .resolution import Resolution


@dataclass(slots=True)
class Series:
    """*turnaround* is the client's mark of its latest request; every answer carries it."""

    name: str
    turnaround: str
    symbol: str
    resolution: Resolution
    count: int  # bars asked for
    bars: list[Bar] = field(default_factory=list)
    warm_up: list[Bar] = field(default_factory=list)  # before the bars: what studies start from
    live: bool = False

    @property
    def opened_first(self) -> datetime | None:
        """When the oldest bar opened."""
        return datetime.fromtimestamp(self.bars[0].time, UTC) if self.bars else None

    @property
    def opened_last(self) -> datetime | None:
        """When the newest bar opened."""
        return datetime.fromtimestamp(self.bars[-1].time, UTC) if self.bars else None

    def close_of(self, bar: Bar) -> int:
        """Return when *bar* closes, in epoch seconds."""
        opened = datetime.fromtimestamp(bar.time, UTC)
        return int(self.resolution.after(opened).timestamp())

    def add(self, bar: Bar) -> bool:
        """Take *bar* as the newest state; return whether it begins a new bar."""
        if self.bars and self.bars[-1].time == bar.time:
            self.bars[-1] = bar
            return False
        self.bars.append(bar)
        return True
