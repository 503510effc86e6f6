"""Official one-minute bars from the feed's chart history.

One chart session with one series, paged backward until it reaches far enough or the feed says it
has no more; anonymous access ends after about 5,000 bars. What the bars repair belongs to
``build``; when to ask, and in which order, to the schedule.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from lakehouse_pipeline.errors import TransportError
from lakehouse_pipeline.market.schemas import HISTORY
from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline.settings import FeedSettings
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
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS, ClientProtocol

PAGE = 2_000  # bars asked for at once
PATIENCE = timedelta(seconds=60)  # for one symbol; chart links are known to hang
SERIES, TURNAROUND, SYMBOL_ID, RESOLUTION = "sds_1", "s1", "sds_sym_1", "1"


@dataclass(frozen=True)
class History:
    """The bars of one symbol, closed ones only, in HISTORY schema and order of time.

    ``ended`` is why there is nothing older: ``reached`` (as far as was asked), ``end`` (nothing
    older exists), ``limit`` (older ones are refused) or ``empty`` (a page brought nothing new).
    """

    bars: pl.DataFrame
    ended: str


async def fetch_minutes(
    feed: FeedSettings, symbol: str, *, since: datetime, now: Callable[[], datetime]
) -> History:
    """Return the official minutes of *symbol* (a full name) from *since* to now.

    *now* is the clock by which a bar is closed. The caller paces the connects.

    Raises:
        SymbolError, EntitlementError, LimitError: the feed will not give them.
        TransportError: the connection broke, or the feed went on too long.
        HandshakeRefused, AuthError, Banned: see ``tradingview.client``.
    """
    try:
        async with (
            asyncio.timeout(PATIENCE.total_seconds()),
            connect(feed, now=now) as connection,
        ):
            bars, ended = await _Fetch(connection, feed, since).run(symbol)
    except TimeoutError as error:
        raise TransportError(f"The history of {symbol} did not end within {PATIENCE}.") from error
    return History(_frame(symbol, bars, since=since, fetched_at=now()), ended)


class _Fetch:
    """One series on one connection, page by page."""

    def __init__(self, connection: Connection, feed: FeedSettings, since: datetime) -> None:
        self._connection = connection
        self._token = ANONYMOUS if feed.token is None else feed.token.get_secret_value()
        self._since = since
        self._protocol = ClientProtocol()
        self._session = f"cs_{uuid.uuid4().hex[:12]}"
        self._bars: dict[datetime, HistoryBar] = {}
        self._before_page = 0

    async def run(self, symbol: str) -> tuple[dict[datetime, HistoryBar], str]:
        protocol, session = self._protocol, self._session
        protocol.set_auth_token(self._token)
        protocol.set_locale()
        protocol.chart_create_session(session)
        protocol.resolve_symbol(session, SYMBOL_ID, symbol)
        protocol.create_series(
            session,
            SERIES,
            turnaround=TURNAROUND,
            symbol_id=SYMBOL_ID,
            resolution=RESOLUTION,
            count=PAGE,
        )
        await self._connection.send(protocol.texts_to_send())
        async for text, received_at in self._connection:
            for event in protocol.receive_text(text, received_at):
                if (ended := self._take(event)) is not None:
                    protocol.chart_delete_session(session)
                    await self._connection.send(protocol.texts_to_send())
                    return self._bars, ended
            if texts := protocol.texts_to_send():
                await self._connection.send(texts)
        raise AssertionError("reading ends by an exception")

    def _take(self, event: Event) -> str | None:
        """Take one event in; return why the history has ended, if it has."""
        match event:
            case HistoryUpdate(session=self._session, series=series):
                self._bars.update((bar.open_time, bar) for bar in series.get(SERIES, []))
            case SeriesCompleted(session=self._session, data_completed=completed):
                return self._next_page(completed)
            case SymbolFailed() | SeriesFailed() | CriticalFailure() | ProtocolFailure():
                error = to_error(event)
                assert error is not None
                raise error
            case _:
                pass
        return None

    def _next_page(self, completed: str | None) -> str | None:
        if completed is not None:
            return completed
        if self._bars and min(self._bars) <= self._since:
            return "reached"
        if len(self._bars) == self._before_page:
            return "empty"
        self._before_page = len(self._bars)
        self._protocol.request_more_data(self._session, SERIES, PAGE)
        return None


def _frame(
    symbol: str, bars: dict[datetime, HistoryBar], *, since: datetime, fetched_at: datetime
) -> pl.DataFrame:
    rows = [
        (
            symbol.partition(":")[0],
            symbol,
            bar.open_time,
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            fetched_at,
        )
        for _, bar in sorted(bars.items())
        if since <= bar.open_time and bar.open_time + MINUTE <= fetched_at
    ]
    return pl.DataFrame(rows, schema=HISTORY, orient="row")
