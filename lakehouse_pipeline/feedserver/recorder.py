"""``lakehouse feed record``: raw websocket messages to a file, as they come.

One line a message (see `recording.RecordedLine`), nothing interpreted but heartbeats, which are
answered. The file is what ``lakehouse replay`` and the recorded market read. Recording into the
lake, with everything that takes, belongs to ``ingest``.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from lakehouse_pipeline.errors import AuthError, Banned, InputFileError, TransportError
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.client import Connection, connect
from lakehouse_pipeline.tradingview.messages import to_error
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS, ClientProtocol

from .recording import RecordedLine
from .tape import to_us

log = structlog.get_logger()


async def record(
    feed: FeedSettings,
    symbols: Sequence[str],
    out: Path,
    *,
    stop: asyncio.Event,
    now: Callable[[], datetime],
    greeted: Callable[[datetime], None] = lambda _: None,
) -> None:
    """Append what *feed* says of *symbols* (full names) to *out* until *stop* is set.

    *greeted* is told the feed's own time at each greeting, before *now* is asked. A broken
    connection is opened again after the feed's ``connect_interval``.

    Raises:
        AuthError, Banned: the feed refused us for good.
        InputFileError: *out* cannot be written.
    """
    try:
        file = out.open("ab")
    except OSError as error:
        raise InputFileError(f"{out} cannot be written: {error.strerror}.") from error
    with file:
        recording = asyncio.create_task(_record(feed, symbols, file, now, greeted))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({recording, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        recording.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await recording


async def _record(
    feed: FeedSettings,
    symbols: Sequence[str],
    file: BinaryIO,
    now: Callable[[], datetime],
    greeted: Callable[[datetime], None],
) -> None:
    while True:
        session = uuid.uuid4().hex
        try:
            async with connect(feed, now=now) as connection:
                if connection.hello.server_time is not None:
                    greeted(connection.hello.server_time)
                _write(file, RecordedLine(to_us(now()), session, event="opened"))
                try:
                    await _copy(connection, feed, symbols, session, file)
                finally:
                    _write(file, RecordedLine(to_us(now()), session, event="closed"))
        except TransportError as error:
            log.warning("feed_connection_broke", error=str(error))
        await asyncio.sleep(feed.connect_interval.total_seconds())


async def _copy(
    connection: Connection, feed: FeedSettings, symbols: Sequence[str], session: str, file: BinaryIO
) -> None:
    protocol = ClientProtocol()
    protocol.set_auth_token(feed.token.get_secret_value() if feed.token else ANONYMOUS)
    protocol.quote_create_session("qs_recorder")
    protocol.quote_set_fields("qs_recorder")
    protocol.quote_add_symbols("qs_recorder", symbols)
    await connection.send(protocol.texts_to_send())
    async for text, received_at in connection:
        _write(file, RecordedLine(to_us(received_at), session, text=text))
        for event in protocol.receive_text(text, received_at):
            error = to_error(event)
            if isinstance(error, (AuthError, Banned)):
                raise error
            if error is not None:
                log.warning("feed_refused", error=str(error))
        await connection.send(protocol.texts_to_send())


def _write(file: BinaryIO, line: RecordedLine) -> None:
    file.write(msgspec.json.encode(line) + b"\n")
    file.flush()
