"""The asyncio shell of the client half: the only module of the protocol that opens a socket.

``connect`` opens one websocket, follows redirects and reads the greeting; what comes after is text
with the time it was seen. Nothing here reconnects, resubscribes or understands quotes: that is the
worker's business, which tells the errors apart:

* ``HandshakeRefused``: the feed answered with an HTTP status; pause long after 403 and 429;
* ``RedirectRefused``: it sent us to a host that must not see our token;
* ``FeedSilent``: no frame at all for the watchdog's time, so the socket is dead;
* ``TransportError``: anything else between us and the feed, orderly closing included;
* an error of ``to_error`` when the feed refuses us instead of greeting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Origin

from lakehouse_pipeline.errors import (
    FeedSilent,
    HandshakeRefused,
    ProtocolFault,
    RedirectRefused,
    SettingsError,
    TransportError,
)
from lakehouse_pipeline.settings import FeedSettings

from .frames import FrameDecoder
from .messages import Hello, Redirect, to_error
from .parsing import parse
from .site import may_see_token
from .watchdog import Watchdog

MAX_MESSAGE_BYTES = 64 << 20  # history comes as one message, 1.1 MB for 10,000 bars
MAX_REDIRECTS = 20
CLOSE_TIMEOUT = timedelta(seconds=1)


class Connection:
    """An open, greeted connection; ``async for text, received_at in connection`` reads it.

    The greeting is the first text. Reading never ends by itself: it raises when the feed closes,
    breaks or falls silent.
    """

    def __init__(
        self,
        websocket: ClientConnection,
        *,
        greeting: str,
        hello: Hello,
        silence_timeout: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.hello = hello
        self._websocket = websocket
        self._greeting: str | None = greeting
        self._silence_timeout = silence_timeout
        # A cut connection ends the reading at once.
        self._watchdog = Watchdog(silence_timeout, bite=websocket.transport.abort)
        self._now = now

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, datetime]:
        text, self._greeting = self._greeting, None
        if text is None:
            self._watchdog.waits()
            try:
                data = await self._websocket.recv(decode=False)
            except ConnectionClosed as error:
                if self._watchdog.has_bitten:
                    raise _silent(self._silence_timeout) from error
                raise _closed(error) from error
            finally:
                self._watchdog.rests()
            text = _as_text(data)
        return text, self._now()

    async def send(self, texts: Iterable[str]) -> None:
        """Send each text as one websocket message.

        Raises:
            TransportError: if the connection is closed, or the feed stopped reading.
        """
        try:
            async with asyncio.timeout(self._silence_timeout.total_seconds()):
                for text in texts:
                    await self._websocket.send(text)
        except TimeoutError as error:
            raise TransportError("The feed no longer reads what we send.") from error
        except ConnectionClosed as error:
            raise _closed(error) from error


@asynccontextmanager
async def connect(feed: FeedSettings, *, now: Callable[[], datetime]) -> AsyncIterator[Connection]:
    """Connect, follow redirects, read the greeting; close on leaving, within seconds.

    With a token, or cookies that give one, redirects are followed within the feed's own site alone,
    because whoever greets us is shown it, now or when it is renewed.

    Args:
        feed: where to, who we say we are, and the timeouts.
        now: the worker's clock, asked whenever a message was seen. It may be set from
            ``connection.hello`` before the first read.

    Raises:
        SettingsError: if the configured address is none.
        HandshakeRefused, RedirectRefused, FeedSilent, TransportError, ProtocolFault, AuthError,
        Banned, LimitError: see the module.
    """
    url = feed.url
    has_secret = feed.token is not None or feed.sessionid is not None
    for _ in range(MAX_REDIRECTS + 1):
        websocket = await _open(url, feed)
        try:
            greeting = await _receive_greeting(websocket, within=feed.connect_timeout)
            event = _read_greeting(greeting)
            if isinstance(event, Hello):
                yield Connection(
                    websocket,
                    greeting=greeting,
                    hello=event,
                    silence_timeout=feed.silence_timeout,
                    now=now,
                )
                return
        finally:
            await _close(websocket)
        url = urlsplit(url)._replace(netloc=event.host).geturl()
        if has_secret and not may_see_token(url, feed.url):
            raise RedirectRefused(event.host[:80], configured=str(urlsplit(feed.url).hostname))
    raise TransportError(f"The feed redirected more than {MAX_REDIRECTS} times.")


class _Straight(open_websocket):
    """Follows no HTTP redirect, as no browser does: only the greeting may send us elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def _open(url: str, feed: FeedSettings) -> ClientConnection:
    try:
        return await _Straight(
            url,
            origin=Origin(feed.origin),
            user_agent_header=feed.user_agent,
            open_timeout=feed.connect_timeout.total_seconds(),
            close_timeout=CLOSE_TIMEOUT.total_seconds(),
            ping_interval=None,  # the feed has heartbeats of its own; pings to it are untried
            max_size=MAX_MESSAGE_BYTES,
        )
    except InvalidStatus as error:
        raise HandshakeRefused(error.response.status_code) from error
    except TimeoutError as error:
        seconds = feed.connect_timeout.total_seconds()
        raise TransportError(f"The feed did not answer a connect for {seconds:g} s.") from error
    except InvalidURI as error:
        if url == feed.url:
            raise SettingsError(
                f"Setting feed.url: {url!r} is no websocket address.",
                mend="Write it as wss://host/path.",
            ) from error
        raise TransportError(f"The feed redirected to {url!r}, which is no address.") from error
    except (OSError, WebSocketException, ValueError) as error:
        # ValueError: a redirect's host that no resolver takes
        raise TransportError(f"The feed could not be reached: {error}.") from error


async def _receive_greeting(websocket: ClientConnection, *, within: timedelta) -> str:
    try:
        async with asyncio.timeout(within.total_seconds()):
            data = await websocket.recv(decode=False)
    except TimeoutError as error:
        raise _silent(within) from error
    except ConnectionClosed as error:
        raise _closed(error) from error
    return _as_text(data)


def _as_text(data: bytes) -> str:
    """Bytes that are no text must reach the rejects, not end the connection."""
    return data.decode("utf-8", "replace")


def _read_greeting(text: str) -> Hello | Redirect:
    for event in map(parse, FrameDecoder().decode(text)):
        if isinstance(event, Hello | Redirect):
            return event
        error = to_error(event)
        if error is not None:
            raise error
    raise ProtocolFault(f"The feed did not greet but sent {text[:80]!r}.")


def _silent(length: timedelta) -> FeedSilent:
    return FeedSilent(f"The feed sent nothing for {length.total_seconds():g} s.")


def _closed(error: ConnectionClosed) -> TransportError:
    return TransportError(f"The connection to the feed ended: {error}.")


async def _close(websocket: ClientConnection) -> None:
    """Close politely, or else cut: a peer that reads nothing must not hold us."""
    try:
        with suppress(TimeoutError):  # then it is cut
            async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                await websocket.close()
    finally:
        websocket.transport.abort()  # changes nothing after a polite end
