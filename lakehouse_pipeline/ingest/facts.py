"""What a live session tells about the feed that no capture settles.

The heartbeat's period, how often price, volume and bid/ask come, and what kind the volume counter
looks like. ``lakehouse doctor --listen`` records it, so that a deployment knows its feed instead
of believing a document.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

import msgspec

from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.client import connect
from lakehouse_pipeline.tradingview.messages import Event, Heartbeat, QuoteUpdate
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS, ClientProtocol

SESSION = "qs_lakehousedoc"
BOOK = {"bid", "ask", "bid_size", "ask_size"}


class FeedFacts(msgspec.Struct, frozen=True):
    """Periods are medians in seconds; None where fewer than two were seen."""

    url: str
    release: str
    since: datetime
    until: datetime
    symbols: list[str]
    refused: list[str]
    frames: int
    framing_errors: int
    frames_beyond_ascii: int
    heartbeat_seconds: float | None
    price_seconds: float | None
    volume_seconds: float | None
    bid_ask_seconds: float | None
    update_modes: list[str]
    day_opens_at_midnight: bool | None
    volume_steps: int
    volume_falls: int
    volume_falls_at_midnight: int

    @property
    def counter_kind(self) -> str:
        """What the counter's steps prove so far: session, rolling, or not decided yet."""
        elsewhere = self.volume_falls - self.volume_falls_at_midnight
        if elsewhere > 0.02 * max(self.volume_steps, 1) and elsewhere > 2:
            return "rolling"
        if self.volume_falls_at_midnight and not elsewhere:
            return "session"
        return "undecided"


@dataclass
class _Tally:
    heartbeats: list[datetime] = field(default_factory=list)
    prices: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    volumes: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    books: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    modes: set[str] = field(default_factory=set)
    day_opens: set[bool] = field(default_factory=set)
    steps: int = 0
    falls: int = 0
    falls_at_midnight: int = 0

    def add(self, event: Event, at: datetime) -> None:
        if isinstance(event, Heartbeat):
            self.heartbeats.append(at)
        elif isinstance(event, QuoteUpdate):
            if event.status != "ok":
                self.refused.add(event.name)
                return
            self._add_values(event.name, event.values, at)

    def _add_values(self, name: str, values: dict[str, object], at: datetime) -> None:
        first = name not in self.prices
        if "lp" in values:
            self.prices[name].append(at)
        if BOOK & values.keys() and not first:
            self.books[name].append(at)
        if isinstance(mode := values.get("update_mode"), str):
            self.modes.add(mode)
        if isinstance(opens := values.get("open_time"), int | float):
            self.day_opens.add(opens % 86_400 == 0)
        if isinstance(counter := values.get("volume"), int | float):
            self._add_counter(name, float(counter), at)

    def _add_counter(self, name: str, counter: float, at: datetime) -> None:
        self.volumes[name].append(at)
        before = self.counters.get(name)
        self.counters[name] = (counter, at)
        if before is None or counter == before[0]:
            return
        self.steps += 1
        if counter < before[0]:
            self.falls += 1
            # A day roll shows between the last update of a day and the first of the next.
            self.falls_at_midnight += before[1].date() < at.date()


async def observe(
    feed: FeedSettings,
    symbols: Sequence[str],
    *,
    listen_for: timedelta,
    now: Callable[[], datetime],
) -> FeedFacts:
    """Listen to *symbols* on one connection for *listen_for* and return what was seen.

    Raises:
        FeedError: as ``connect`` does, also when the feed leaves before the time is over.
    """
    tally = _Tally()
    protocol = ClientProtocol()
    frames = beyond_ascii = 0
    async with connect(feed, now=now) as connection:
        since = until = now()
        protocol.set_auth_token(feed.token.get_secret_value() if feed.token else ANONYMOUS)
        protocol.quote_create_session(SESSION)
        protocol.quote_set_fields(SESSION)
        protocol.quote_add_symbols(SESSION, symbols)
        await connection.send(protocol.texts_to_send())
        try:
            async with asyncio.timeout(listen_for.total_seconds()):
                async for text, until in connection:
                    frames += 1
                    beyond_ascii += not text.isascii()
                    for event in protocol.receive_text(text, until):
                        tally.add(event, until)
                    await connection.send(protocol.texts_to_send())
        except TimeoutError:
            pass  # the time to listen is over
        return FeedFacts(
            url=feed.url.split("?")[0],
            release=connection.hello.release,
            since=since,
            until=until,
            symbols=list(symbols),
            refused=sorted(tally.refused),
            frames=frames,
            framing_errors=protocol.decoder.errors,
            frames_beyond_ascii=beyond_ascii,
            heartbeat_seconds=_period([tally.heartbeats]),
            price_seconds=_period(tally.prices.values()),
            volume_seconds=_period(tally.volumes.values()),
            bid_ask_seconds=_period(tally.books.values()),
            update_modes=sorted(tally.modes),
            day_opens_at_midnight=all(tally.day_opens) if tally.day_opens else None,
            volume_steps=tally.steps,
            volume_falls=tally.falls,
            volume_falls_at_midnight=tally.falls_at_midnight,
        )


def _period(series: Iterable[list[datetime]]) -> float | None:
    steps = [
        (later - earlier).total_seconds() for times in series for earlier, later in pairwise(times)
    ]
    return round(median(steps), 3) if steps else None
