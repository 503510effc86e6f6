"""Official bars from the feed's chart history.

One connection serves any number of symbols: each gets a chart session with one series, paged
backward until it reaches far enough or the feed says it has no more; anonymous access ends after
about 5,000 bars. A task reads the connection all the time, or a heartbeat would go unanswered
while a caller writes what it got. What to ask, and what the bars repair, belongs to
``market.repair``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from lakehouse_pipeline.errors import FeedError, NoAnswer
from lakehouse_pipeline.market.coverage import LATENESS
from lakehouse_pipeline.market.repair import Ended
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import MINUTE, floor
from lakehouse_pipeline.settings import FeedSettings, HistorySettings
from lakehouse_pipeline.tradingview.client import Connection, connect
from lakehouse_pipeline.tradingview.messages import (
    CriticalFailure,
    Event,
    HistoryBar,
    HistoryUpdate,
    ProtocolFailure,
    SeriesCompleted,
    SeriesFailed,
    SymbolFailed,
    to_error,
)
from lakehouse_pipeline.tradingview.protocol import ClientProtocol
from lakehouse_pipeline.tradingview.token import unless_over

from .clock import Clock
from .limiter import ConnectLimiter

PAGE = 2_000  # bars asked for at once
SERIES, TURNAROUND, SYMBOL_ID = "sds_1", "s1", "sds_sym_1"


@dataclass(frozen=True, slots=True)
class History:
    """The settled bars of one symbol, in HISTORY schema and order of time.

    They are all there are in ``[reached, until)``; ``ended`` says why nothing older came.
    """

    bars: pl.DataFrame
    reached: datetime
    until: datetime
    ended: Ended


class HistoryFeed:
    """An open connection that is asked for one symbol after the other; see ``open_history``."""

    def __init__(
        self, connection: Connection, feed: FeedSettings, settings: HistorySettings, clock: Clock
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = clock
        self._protocol = ClientProtocol()
        self._events: asyncio.Queue[Event | FeedError] = asyncio.Queue()
        self._asked_at = float("-inf")  # by the loop's clock
        token = None if feed.token is None else feed.token.get_secret_value()
        self._protocol.set_auth_token(unless_over(token, clock.now()))
        self._protocol.set_locale()

    async def fetch(self, symbol: str, since: datetime, *, step: timedelta = MINUTE) -> History:
        """Return the official bars of *symbol* (a full name) from *since* to now.

        *step* is a minute, or a second for those whose plan includes it.

        Raises:
            SymbolError, EntitlementError, LimitError: the feed will not give them; others may come.
            NoAnswer: the feed took too long; this connection may hang for others as well.
            TransportError: the connection broke.
            AuthError, Banned, ProtocolFault: see ``tradingview.messages``.
        """
        patience = self._settings.answer_timeout
        try:
            async with asyncio.timeout(patience.total_seconds()):
                bars, ended = await self._pages(symbol, since, step)
        except TimeoutError as error:
            raise NoAnswer(
                f"The history of {symbol} did not end within {patience.total_seconds():g} s."
            ) from error
        fetched_at = self._clock.now()
        until = floor(fetched_at - LATENESS, step)  # a bar just closed may still be amended
        oldest = min(bars, default=until)
        reached = since if ended in (Ended.REACHED, Ended.END) else min(max(since, oldest), until)
        settled = [bar for at, bar in sorted(bars.items()) if since <= at < until]
        return History(_frame(symbol, settled, fetched_at), reached, until, ended)

    async def read(self) -> None:
        """Answer heartbeats and collect events until the connection ends."""
        try:
            async for text, received_at in self._connection:
                for event in self._protocol.receive_text(text, received_at):
                    self._events.put_nowait(event)
                await self._send()
        except FeedError as error:
            self._events.put_nowait(error)

    async def _pages(
        self, symbol: str, since: datetime, step: timedelta
    ) -> tuple[dict[datetime, HistoryBar], Ended]:
        protocol, session = self._protocol, f"cs_{uuid.uuid4().hex[:12]}"
        bars: dict[datetime, HistoryBar] = {}
        await self._pace()
        wanted = (self._clock.now() - since) // step + 2
        protocol.chart_create_session(session)
        protocol.resolve_symbol(session, SYMBOL_ID, symbol)
        protocol.create_series(
            session,
            SERIES,
            turnaround=TURNAROUND,
            symbol_id=SYMBOL_ID,
            resolution="1" if step == MINUTE else "1S",
            count=min(wanted, PAGE),
        )
        try:
            while True:
                before = len(bars)
                await self._send()
                completed = await self._page(session, symbol, bars)
                if completed is not None:
                    return bars, Ended(completed)
                if bars and min(bars) <= since:
                    return bars, Ended.REACHED
                if len(bars) == before:
                    return bars, Ended.EMPTY
                await self._pace()
                protocol.request_more_data(session, SERIES, PAGE)
        finally:
            protocol.chart_delete_session(session)  # goes out with the next request

    async def _page(
        self, session: str, symbol: str, bars: dict[datetime, HistoryBar]
    ) -> str | None:
        """Add the bars of one answer to *bars*; return why there are no older ones, if told."""
        while True:
            event = await self._events.get()
            match event:
                case FeedError():
                    self._events.put_nowait(event)  # nothing more will come: not for others either
                    raise event
                case HistoryUpdate(session=name, series=series) if name == session:
                    bars.update((bar.open_time, bar) for bar in series.get(SERIES, []))
                case SeriesCompleted(session=name, data_completed=completed) if name == session:
                    return completed
                case SymbolFailed() | SeriesFailed() | CriticalFailure() | ProtocolFailure():
                    if isinstance(event, ProtocolFailure) or event.session == session:
                        raise _refusal(event, symbol)
                case _:
                    pass

    async def _pace(self) -> None:
        """Wait until the next request may go out."""
        now = asyncio.get_running_loop().time
        due = self._asked_at + self._settings.pace.total_seconds()
        await asyncio.sleep(max(0.0, due - now()))
        self._asked_at = now()

    async def _send(self) -> None:
        if texts := self._protocol.texts_to_send():
            await self._connection.send(texts)


@asynccontextmanager
async def open_history(
    feed: FeedSettings, settings: HistorySettings, *, clock: Clock, limiter: ConnectLimiter
) -> AsyncIterator[HistoryFeed]:
    """Connect when *limiter* lets us; *clock* says by which time a bar is closed.

    Raises:
        HandshakeRefused, TransportError, AuthError, Banned: see ``tradingview.client``.
    """
    await limiter.wait(feed.url)
    async with connect(feed, now=clock.now) as connection:
        if connection.hello.server_time is not None:
            clock.anchor(connection.hello.server_time)
        history = HistoryFeed(connection, feed, settings, clock)
        reader = asyncio.create_task(history.read())
        try:
            yield history
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader


def _refusal(event: Event, symbol: str) -> FeedError:
    error = to_error(event)
    assert error is not None
    return type(error)(f"History of {symbol}: {error.problem}", mend=error.mend)


def _frame(symbol: str, bars: list[HistoryBar], fetched_at: datetime) -> pl.DataFrame:
    exchange = symbol.partition(":")[0]
    rows = [
        (exchange, symbol, bar.open_time, bar.open, bar.high, bar.low, bar.close, bar.volume)
        for bar in bars
    ]
    stamped = [(*row, fetched_at) for row in rows]
    return pl.DataFrame(stamped, schema=HISTORY, orient="row")
