"""The feed server: a real websocket server in front of a market.

A thin shell: sockets, the handshake and the pump that moves market time. Protocol and sessions are
`connection`; the few HTTP answers of the same port are `http`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from types import TracebackType
from typing import Self

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from lakehouse_pipeline.errors import PortInUse

from .access import Access
from .clock import MarketClock
from .connection import Connection
from .faults import Ending, Fault, Faults, Link
from .http import answer
from .market import Counter, Market
from .quote_session import Broadcast
from .world import Sent, World

HEARTBEAT = timedelta(seconds=10)
# The pump wakes after this much market time, within these bounds of real seconds.
STEP = timedelta(seconds=0.25)
SHORTEST, LONGEST = 0.002, 0.05

log = structlog.get_logger()


class FeedServer:
    """``async with FeedServer(market) as server: connect(server.url)``.

    Args:
        start: market time at which it starts; the market's recorded time, or now, when None.
        speed: market seconds a second; heartbeats and faults run with it.
        tokens: the good ones; without any, every token is (see `access`).
        strict: be as unforgiving as the real feed is said to be.
        keep_sent: record every quote packet in ``sent``.

    Raises:
        PortInUse: on entering.
    """

    def __init__(
        self,
        market: Market,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        start: datetime | None = None,
        speed: float = 1.0,
        counter: Counter | str = Counter.SESSION,
        faults: Sequence[Fault] = (),
        tokens: Collection[str] = (),
        deflate: bool = True,
        strict: bool = False,
        heartbeat: timedelta = HEARTBEAT,
        keep_sent: bool = True,
    ) -> None:
        self.market = market
        self.sent: list[Sent] = []
        """Every quote packet sent to any client, in order; also those a fault then lost."""
        self._host, self._port = host, port
        self._start, self._speed = start if start is not None else market.starts_at, speed
        self._counter = Counter(counter)
        self._faults = Faults(faults)
        self._access = Access(tokens, strict=strict)
        self._compression = "deflate" if deflate else None
        self._strict = strict
        self._heartbeat = heartbeat
        self._keep_sent = keep_sent
        self._connections: set[Connection] = set()
        self._opened = 0

    async def __aenter__(self) -> Self:
        clock = MarketClock(self._start, speed=self._speed)
        self._world = World(
            market=self.market,
            clock=clock,
            counter=self._counter,
            access=self._access,
            faults=self._faults,
            heartbeat=self._heartbeat,
            strict=self._strict,
            position=clock.start,
            sent=self.sent if self._keep_sent else None,
        )
        try:
            self._server: Server = await serve(
                self._serve_client,
                self._host,
                self._port,
                process_request=self._process_request,
                compression=self._compression,
                max_size=None,
                ping_interval=None,  # slow readers answer late; the protocol has its own heartbeat
                close_timeout=1,
                server_header=None,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortInUse(self._port, setting="--port") from error
        self._pump = asyncio.create_task(self._run_pump(), name="feed server pump")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"ws://{self._host}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{self._host}:{self.port}"

    def now(self) -> datetime:
        """Return the market time."""
        return self._world.now()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def run_until(self, stop: asyncio.Event) -> None:
        """Return when *stop* is set; raise what the server failed of."""
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, self._pump}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    def drop_clients(self) -> None:
        """Cut every connection, as a broken network does."""
        for connection in list(self._connections):
            connection.drop()

    # Sockets

    async def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" not in request.headers:
            return answer(self._world, request.path)
        origins = request.headers.get_all("Origin")
        if len(origins) > 1:  # two published clients send their own and their library's
            del request.headers["Origin"]
            request.headers["Origin"] = origins[0]
        if self._strict and not any("tradingview.com" in origin for origin in origins):
            return socket.respond(403, "Origin is not allowed.\n")
        status = self._faults.refuse(self._world.elapsed())
        return None if status is None else socket.respond(status, "Refused.\n")

    async def _serve_client(self, socket: ServerConnection) -> None:
        self._opened += 1
        link = Link(self._opened, self._world.elapsed())
        connection = Connection(
            self._world, link, session_id=uuid.uuid4().hex, cut=socket.transport.abort
        )
        self._connections.add(connection)
        log.info("feed_client_connected", connection=link.number)
        drips = bool(self._faults)
        writer = asyncio.create_task(_write(socket, connection, drips=drips))
        try:
            async for message in socket:
                text = message if isinstance(message, str) else message.decode(errors="replace")
                await connection.receive(text)
                await connection.outbox.room()
        except ConnectionClosed:
            pass  # clients come and go
        finally:
            self._connections.discard(connection)
            connection.outbox.abandon()
            await writer
            log.info("feed_client_left", connection=link.number)

    # Market time

    async def _run_pump(self) -> None:
        pause = min(max(STEP.total_seconds() / self._speed, SHORTEST), LONGEST)
        delay = timedelta(0)
        while True:
            await asyncio.sleep(pause)
            now, before = self._world.now(), delay
            delay = self._faults.delay(self._world.elapsed())
            if delay == before:
                self._send_updates(now - delay)
            else:  # another feed, in a way: everybody gets its state
                self._world.position = now - delay
                for connection in self._connections:
                    connection.resend()
            for connection in list(self._connections):
                connection.tick(now)
                self._end(connection)

    def _end(self, connection: Connection) -> None:
        """End *connection* if a fault wants it."""
        match self._faults.ending(self._world.elapsed(), connection.link):
            case Ending.DROP:
                connection.drop()
            case Ending.BAN:
                connection.refuse("banned by ip")

    def _send_updates(self, until: datetime) -> None:
        """Send everything the feed says up to *until* to those who watch it, in order."""
        world = self._world
        since, world.position = world.position, until
        watched = {name for connection in self._connections for name in connection.symbols()}
        updates = [
            (update.at, symbol, update.values)
            for symbol in watched
            for update in self.market.updates(symbol, since, until, self._counter)
        ]
        updates.sort(key=itemgetter(0))
        elapsed = world.elapsed()
        for at, symbol, values in updates:
            update = Broadcast(self._faults.quote(elapsed, symbol, values))
            for connection in self._connections:
                connection.push(symbol, at, update)


async def _write(socket: ServerConnection, connection: Connection, *, drips: bool) -> None:
    """Send what waits until the connection's end, then close without a closing handshake."""
    try:
        async for text in connection.outbox:
            await socket.send(connection.pieces(text) if drips else text)
    except ConnectionClosed:
        connection.outbox.abandon()
    finally:
        socket.transport.close()
