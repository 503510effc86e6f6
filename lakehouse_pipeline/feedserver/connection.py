"""One client: its protocol state, its sessions and what it is told.

No socket here and no loop: the server hands in texts and ticks, and takes texts from the outbox.
What a method of the protocol does belongs to the session it addresses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import structlog

from lakehouse_pipeline.tradingview.frames import encode as frame
from lakehouse_pipeline.tradingview.messages import Flaw, Malformed
from lakehouse_pipeline.tradingview.server_protocol import Call, ServerProtocol, dump

from .chart_session import ChartSessions
from .faults import Link
from .outbox import Outbox
from .quote_session import Broadcast, QuoteSessions
from .refusal import Refused
from .world import Sent, World

DEAD_AFTER = timedelta(seconds=30)
PIECE = 16  # characters of a message that drips

log = structlog.get_logger()


class Connection:
    """Answers one client. *cut* breaks the socket at once, whatever still waits to be sent."""

    def __init__(
        self, world: World, link: Link, *, session_id: str, cut: Callable[[], None]
    ) -> None:
        self.outbox = Outbox()
        self.link = link
        self.ended = False
        self._cut = cut
        self.plan = world.access.anonymous
        self.quotes = QuoteSessions(self, strict=world.strict)
        self.charts = ChartSessions(self, world)
        self._world = world
        self._protocol = ServerProtocol()
        self._next_heartbeat = world.now() + world.heartbeat
        self._heard = world.now()
        self._token = ""  # the one shown last
        host = world.faults.redirect(world.elapsed())
        if host is None:
            self._protocol.hello(session_id=session_id, now=world.now())
            self._drain()
        else:
            self._protocol.redirect(host)
            self._drain()
            self.outbox.finish()

    # From the client

    async def receive(self, text: str) -> None:
        """Answer one websocket message."""
        self._heard = self._world.now()
        for request in self._protocol.receive_text(text):
            if isinstance(request, Call):
                await self._answer(request)
            elif isinstance(request, Malformed) and request.reason is not Flaw.UNFRAMED:
                self.refuse("wrong data")
            if self.ended:
                return

    async def _answer(self, call: Call) -> None:
        try:
            if call.method == "set_auth_token":
                self._authenticate(call.params)
            elif call.method.startswith("quote_"):
                await self.quotes.handle(call.method, call.params)
            else:
                await self.charts.handle(call.method, call.params)
        except Refused as refused:
            self.send("critical_error", [refused.session, refused.reason, refused.detail])

    def _authenticate(self, params: list[Any]) -> None:
        self._token = str(params[0]) if params else ""
        plan = self._world.access.plan(self._token)
        if plan is None or self._has_expired():
            self.refuse("bad auth token")
        else:
            self.plan = plan

    def _has_expired(self) -> bool:
        faults = self._world.faults
        return bool(faults) and faults.refuses(self._world.elapsed(), self._token)

    # To the client

    def send(self, method: str, params: list[Any]) -> None:
        self._protocol.send(method, params)
        self._drain()

    def send_stamped(self, method: str, params: list[Any]) -> None:
        """Send a message that carries the server's time, as most of a chart's do."""
        milliseconds = round(self._world.now().timestamp() * 1000)
        self._protocol.send(method, params, (milliseconds // 1000, milliseconds))
        self._drain()

    def send_quote(self, session: str, name: str, values: dict[str, Any], tail: str) -> None:
        head = f'{{"m":"qsd","p":[{dump(session)},{{"n":{dump(name)},"s":"ok","v":'
        self._put(frame(f"{head}{tail}}}]}}"))
        if self._world.sent is not None:
            self._world.sent.append(Sent(self._world.now(), session, name, values))

    def refuse(self, reason: str) -> None:
        """Tell the client why, then have the connection closed."""
        self.send("protocol_error", [reason])
        self.ended = True
        self.outbox.finish()

    def drop(self) -> None:
        """Break the connection, as a broken network does."""
        self.ended = True
        self.outbox.abandon()
        self._cut()

    def snapshot(self, symbol: str) -> dict[str, Any] | None:
        return self._world.snapshot(symbol)

    def holds(self, symbol: str) -> bool:
        world = self._world
        if self.outbox.full:
            return True
        return bool(world.faults) and world.faults.holds(world.elapsed(), self.link, symbol)

    async def pieces(self, text: str) -> AsyncIterator[str]:
        """Yield *text* as it is sent: whole, or dripping."""
        rate = self._world.faults.drip(self._world.elapsed())
        size = len(text) if rate is None else PIECE
        for first in range(0, len(text), size):
            if rate is not None:
                await self._world.clock.sleep(timedelta(seconds=size / rate))
            yield text[first : first + size]

    # In market time

    def symbols(self) -> Iterator[str]:
        """Yield what the client watches; some more than once."""
        for session in self.quotes:
            yield from session.keys
        yield from self.charts.symbols()

    def push(self, symbol: str, at: datetime, update: Broadcast) -> None:
        """Tell the client of an *update* of *symbol* that the feed sends *at* this time."""
        for session in self.quotes:
            session.push(symbol, update)
        if update.is_trade:
            self.charts.push(symbol, at)

    def tick(self, now: datetime) -> None:
        """Do what is due at *now*: heartbeats, quotes that waited, the end of a dead peer."""
        while self._next_heartbeat <= now:
            self._next_heartbeat += self._world.heartbeat
            self._protocol.heartbeat()
            self._drain()
        for session in self.quotes:
            session.flush()
        if self._has_expired() and not self.ended:
            self.refuse("bad auth token")
        if self._world.strict and now - self._heard > self._world.heartbeat + DEAD_AFTER:
            log.info("feed_peer_was_dead", connection=self.link.number)
            self.drop()

    def resend(self) -> None:
        """Send everything anew, as after a change of what the feed is."""
        for session in self.quotes:
            session.resend()

    def _drain(self) -> None:
        for text in self._protocol.texts_to_send():
            self._put(text)

    def _put(self, text: str) -> None:
        faults = self._world.faults
        if not faults:
            self.outbox.put(text)
            return
        for changed in faults.texts(self._world.elapsed(), self.link, text):
            self.outbox.put(changed)
