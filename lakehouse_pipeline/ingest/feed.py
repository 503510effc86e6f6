"""Receiving for ever: connect, subscribe, record, and after any trouble do it all again.

A connection is one session. Everything on it is made from the desired state, so that a reconnect
restores what was wanted, not what was there. How long to wait after which trouble is decided in
``backoff``; what the messages mean in ``session``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import NoReturn

import structlog

from lakehouse_pipeline.errors import Banned, FeedError, FeedSilent, TransportError
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.telemetry import FRAMES, SESSIONS
from lakehouse_pipeline.tradingview.client import Connection, connect
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS, ClientProtocol

from .backoff import Backoff
from .clock import Clock
from .heartbeat import WorkerStatus
from .journal import Journal
from .limiter import ConnectLimiter
from .rows import Entry, micros
from .session import SessionRecorder
from .together import until_first_ends

log = structlog.get_logger()

TICK = timedelta(seconds=1)


class Receiver:
    """Records one exchange from the feed into the journal; ``status`` shows how it goes."""

    def __init__(
        self,
        feed: FeedSettings,
        exchange: str,
        *,
        clock: Clock,
        limiter: ConnectLimiter,
        desired: Callable[[], frozenset[str]],
        journal: Journal,
        status: WorkerStatus,
    ) -> None:
        self._feed = feed
        self._exchange = exchange
        self._clock = clock
        self._limiter = limiter
        self._desired = desired
        self._journal = journal
        self._status = status

    async def run(self) -> NoReturn:
        """Record until canceled.

        Raises:
            Banned: the feed does not want us; a person must look.
            SettingsError: the feed's address is none.
        """
        backoff = Backoff(longest=self._feed.backoff_max, refused=self._feed.refused_pause)
        while True:
            await self._limiter.wait(self._feed.url)
            began = time.monotonic()
            try:
                await self._record_session()
            except Banned:
                raise
            except FeedError as error:
                pause = backoff.after(error, lasted=timedelta(seconds=time.monotonic() - began))
                self._status.feed_error = str(error)
                log.warning(
                    "session_lost",
                    exchange=self._exchange,
                    problem=str(error),
                    pause_seconds=round(pause.total_seconds(), 1),
                )
            finally:
                self._status.connected = False
            await self._clock.sleep(pause)

    async def _record_session(self) -> None:
        async with connect(self._feed, now=self._clock.now) as connection:
            if connection.hello.server_time is not None:
                self._clock.anchor(connection.hello.server_time)
            session = SessionRecorder(
                uuid.uuid4().hex,
                quote_session=f"qs_{uuid.uuid4().hex[:12]}",
                opened_at=micros(self._clock.now()),
            )
            self._put(session, session.opened(detail=connection.hello.session_id))
            self._status.connected = True
            self._status.sessions += 1
            log.info("session_opened", exchange=self._exchange, session_id=session.session_id)
            ending, detail = Ending.STOPPED, None
            try:
                protocol = ClientProtocol()
                await until_first_ends(
                    self._receive(connection, session, protocol),
                    self._tick(connection, session, protocol),
                )
            except FeedError as error:
                ending, detail = _ending(error), str(error)
                raise
            finally:
                self._put(session, session.ended(ending, detail))
                SESSIONS.labels(self._exchange, ending.value).inc()

    async def _receive(
        self, connection: Connection, session: SessionRecorder, protocol: ClientProtocol
    ) -> NoReturn:
        token = self._feed.token
        protocol.set_auth_token(ANONYMOUS if token is None else token.get_secret_value())
        protocol.set_locale()
        protocol.quote_create_session(session.quote_session)
        protocol.quote_set_fields(session.quote_session)
        self._follow_desired(session, protocol)
        await connection.send(protocol.texts_to_send())
        frames = FRAMES.labels(self._exchange)
        async for text, received_at in connection:
            frames.inc()
            self._status.frames += 1
            events = protocol.receive_text(text, received_at)
            if texts := protocol.texts_to_send():
                await connection.send(texts)
            self._put(session, session.receive(events, micros(received_at)))
            if session.fault is not None:
                raise session.fault
        raise AssertionError("reading ends by an error only")

    async def _tick(
        self, connection: Connection, session: SessionRecorder, protocol: ClientProtocol
    ) -> NoReturn:
        while True:
            await self._clock.sleep(TICK)
            self._put(session, session.tick())
            stalled, marks = session.stalled()
            if stalled:
                log.warning("symbols_stalled", exchange=self._exchange, symbols=stalled)
                self._put(session, marks)
                protocol.quote_remove_symbols(session.quote_session, stalled)
                protocol.quote_add_symbols(session.quote_session, stalled)
            self._follow_desired(session, protocol)
            if texts := protocol.texts_to_send():
                await connection.send(texts)

    def _follow_desired(self, session: SessionRecorder, protocol: ClientProtocol) -> None:
        desired = self._desired()
        if added := sorted(desired - session.symbols):
            session.subscribe(added)
            protocol.quote_add_symbols(session.quote_session, added)
        if removed := sorted(session.symbols - desired):
            self._put(session, session.unsubscribe(removed, micros(self._clock.now())))
            protocol.quote_remove_symbols(session.quote_session, removed)
        self._status.symbols = len(desired)

    def _put(self, session: SessionRecorder, entries: list[Entry]) -> None:
        self._journal.put(entries, session_id=session.session_id, at=session.last_frame)


def _ending(error: FeedError) -> Ending:
    match error:
        case Banned():
            return Ending.BANNED
        case FeedSilent():
            return Ending.SILENT
        case TransportError():
            return Ending.CLOSED
        case _:
            return Ending.REFUSED
