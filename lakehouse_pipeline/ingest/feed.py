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

from lakehouse_pipeline.errors import AuthError, Banned, FeedError, FeedSilent, TransportError
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.telemetry import FRAMES, SESSIONS
from lakehouse_pipeline.tradingview.client import Connection, connect
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS, ClientProtocol

from .backoff import Backoff
from .clock import Clock
from .express import Express
from .heartbeat import WorkerStatus
from .journal import Journal
from .landed import Landed
from .limiter import ConnectLimiter
from .rows import Entry, micros, reject
from .scripts import StudyScripts
from .session import SessionRecorder
from .studies import StudyRecorder, is_about_charts
from .together import until_first_ends
from .tokens import Tokens

log = structlog.get_logger()

TICK = timedelta(seconds=1)
STEP = timedelta(seconds=1)  # of the machine's clock; less passes as jitter


class Receiver:
    """Records one exchange from the feed into the journal; *status* shows how it goes.

    ``ending`` is what a session's end is called when ``run`` is canceled during it.
    """

    def __init__(
        self,
        feed: FeedSettings,
        *,
        clock: Clock,
        limiter: ConnectLimiter,
        desired: Callable[[], frozenset[str]],
        tokens: Tokens,
        scripts: StudyScripts,
        landed: Landed,
        journal: Journal,
        status: WorkerStatus,
    ) -> None:
        self.ending = Ending.STOPPED
        self._tokens = tokens
        self._scripts = scripts
        self._landed = landed
        self._feed = feed
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
            pause = timedelta(0)
            try:
                await self._record_session()
            except Banned:
                raise
            except FeedError as error:
                lasted = timedelta(seconds=time.monotonic() - began)
                if isinstance(error, AuthError) and self._tokens.refused():
                    pause = backoff.after_loss(lasted=lasted)
                else:
                    pause = backoff.after(error, lasted=lasted)
                self._status.feed_error = str(error)
                log.warning(
                    "session_lost",
                    exchange=self._status.exchange,
                    problem=str(error),
                    pause_seconds=round(pause.total_seconds(), 1),
                )
            await self._clock.sleep(pause)

    async def _record_session(self) -> None:
        """Record one session; return when the clock was set and a new one must begin."""
        async with connect(self._feed, now=self._clock.now) as connection:
            self._clock.anchor(connection.hello.server_time)
            session = _LiveSession(
                connection,
                clock=self._clock,
                desired=self._desired,
                tokens=self._tokens,
                scripts=self._scripts,
                landed=self._landed,
                journal=self._journal,
                status=self._status,
            )
            ending, detail = None, None
            try:
                await until_first_ends(session.receive(), session.until_clock_steps())
                ending, detail = Ending.CLOCK_STEPPED, f"by {self._clock.stepped}"
                log.warning("clock_stepped", exchange=self._status.exchange, by=detail)
            except FeedError as error:
                ending, detail = _ending(error), str(error)
                raise
            finally:
                session.end(ending or self.ending, detail)


class _LiveSession:
    """One connection with its quote session and charts: reading, and looking around at times."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Clock,
        desired: Callable[[], frozenset[str]],
        tokens: Tokens,
        scripts: StudyScripts,
        landed: Landed,
        journal: Journal,
        status: WorkerStatus,
    ) -> None:
        self._connection = connection
        self._tokens = tokens
        self._token = tokens.show()  # the one this connection has shown
        self._scripts = scripts
        self._clock = clock
        self._desired = desired
        self._journal = journal
        self._status = status
        self._protocol = ClientProtocol()
        self._quote_session = f"qs_{uuid.uuid4().hex[:12]}"
        self._recorder = SessionRecorder(uuid.uuid4().hex, opened_at=micros(clock.now()))
        self._express = Express(self._quote_session, self._recorder)
        self._studies = StudyRecorder(
            self._recorder.session_id, self._protocol, landed, bars=scripts.bars
        )
        self._put(self._recorder.opened(detail=connection.hello.session_id))
        status.connected = True
        status.sessions += 1
        status.feed_error = ""
        status.studies_lacking, status.study_error = 0, ""
        log.info("session_opened", exchange=status.exchange, session_id=self._recorder.session_id)

    async def receive(self) -> NoReturn:
        """Subscribe and read; ends by the error that ends the session."""
        self._protocol.set_auth_token(self._token)
        self._protocol.set_locale()
        self._protocol.quote_create_session(self._quote_session)
        self._protocol.quote_set_fields(self._quote_session)
        self._follow_desired()
        await self._send()
        frames = FRAMES.labels(self._status.exchange)
        async for text, received_at in self._connection:
            frames.inc()
            self._status.frames += 1
            at = micros(received_at)
            if (entry := self._express.receive(text, at)) is not None:
                self._put([entry])
                continue
            events = self._protocol.receive_text(text, received_at)
            if charted := [event for event in events if is_about_charts(event)]:
                events = [event for event in events if not is_about_charts(event)]
                self._put(self._studies.receive(charted, at))
            self._put(self._recorder.receive(events, at))
            await self._send()
            if self._recorder.fault is not None:
                raise self._recorder.fault
        raise AssertionError("reading ends by an exception")

    async def until_clock_steps(self) -> None:
        """Each second mark the session alive, wake stalled symbols, follow what is wanted.

        Ends when the machine's clock has been set, and with it what our times mean.
        """
        while abs(self._clock.stepped) < STEP:
            await self._clock.sleep(TICK)
            self._put(self._recorder.tick())
            stalled, marks = self._recorder.stalled()
            if stalled:
                log.warning("symbols_stalled", exchange=self._status.exchange, symbols=stalled)
                self._put(marks)
                self._protocol.quote_remove_symbols(self._quote_session, stalled)
                self._protocol.quote_add_symbols(self._quote_session, stalled)
            self._follow_token()
            self._follow_desired()
            self._follow_studies()
            await self._send()

    def end(self, ending: Ending, detail: str | None) -> None:
        self._put(self._recorder.ended(ending, detail))
        self._status.connected = False
        SESSIONS.labels(self._status.exchange, ending.value).inc()

    def _follow_desired(self) -> None:
        desired, subscribed = self._desired(), self._recorder.symbols
        if added := sorted(desired - subscribed):
            self._recorder.subscribe(added)
            self._protocol.quote_add_symbols(self._quote_session, added)
        if removed := sorted(subscribed - desired):
            self._put(self._recorder.unsubscribe(removed, micros(self._clock.now())))
            self._protocol.quote_remove_symbols(self._quote_session, removed)
        self._status.symbols = len(desired)

    def _follow_token(self) -> None:
        """Show a renewed token on the living connection, which may outlive a token that ends."""
        if self._tokens.current not in (ANONYMOUS, self._token):
            self._token = self._tokens.show()
            self._protocol.set_auth_token(self._token)
            self._studies.forgive()

    def _follow_studies(self) -> None:
        """Ask for indicators where a token allows; an anonymous session is refused them."""
        if self._token == ANONYMOUS:
            return
        at, scripts = self._recorder.last_frame, self._scripts
        session_id = self._recorder.session_id
        self._put([reject(session_id, at, reason, text) for reason, text in scripts.news()])
        self._put(self._studies.follow(self._recorder.symbols, scripts.ready, at))
        troubles = scripts.troubles.items()
        self._status.study_error = "; ".join(f"study {name}: {why}" for name, why in troubles)
        self._status.studies_lacking = self._studies.lacking

    async def _send(self) -> None:
        if texts := self._protocol.texts_to_send():
            await self._connection.send(texts)

    def _put(self, entries: list[Entry]) -> None:
        recorder = self._recorder
        self._journal.put(entries, session_id=recorder.session_id, at=recorder.last_frame)


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
