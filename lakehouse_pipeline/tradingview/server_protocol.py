"""The server half of the protocol: what a TradingView-compatible server says and hears.

Text in, requests out, and texts to send; no socket and no clock. Which quotes, bars and refusals
are sent, and when, belongs to the feed server; this module knows only how they look on the wire.
What every published client accepts decides the form: one packet a websocket message, heartbeats
alone in theirs, compact JSON in the key order of the real feed, non-ASCII text escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from .frames import FrameDecoder, encode
from .messages import Flaw, Malformed, heartbeat_number


class Call(msgspec.Struct, frozen=True):
    """A client's message: method and parameters as sent."""

    method: str
    params: list[Any]  # a client may put anything there


class HeartbeatEcho(msgspec.Struct, frozen=True):
    number: int


Request = Call | HeartbeatEcho | Malformed


class _CallOnTheWire(msgspec.Struct):
    m: str
    p: list[Any]  # as in Call


_CALL = msgspec.json.Decoder(_CallOnTheWire)


def dump(message: Any) -> str:
    """Return *message* as the real feed spells JSON: compact, keys in order, ASCII only."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


class ServerProtocol:
    """One client's connection, seen from the server.

    After every call that queues something, send what ``texts_to_send()`` returns, one websocket
    text message each. Binary messages are decoded as UTF-8 by the shell first.

    Args:
        frame: puts a payload into its envelope; another one than the default makes a server that
            counts differently.
        spell: turns a message into JSON text; another one makes a server that does not escape.
    """

    def __init__(
        self,
        *,
        frame: Callable[[str], str] = encode,
        spell: Callable[[Any], str] = dump,  # Any: whatever JSON can hold
    ) -> None:
        self.heartbeats_sent = 0
        self.last_echo = 0
        """The highest heartbeat number the client sent back; 0 before the first."""
        self._frame = frame
        self._spell = spell
        self._decoder = FrameDecoder()
        self._outbox: list[str] = []

    def hello(
        self,
        *,
        session_id: str,
        now: datetime,
        release: str = "release_210-6",
        via: str = "127.0.0.1:443",
    ) -> None:
        """Queue the greeting; it must be the first packet, sent unasked."""
        milliseconds = round(now.timestamp() * 1000)
        self._queue(
            {
                "session_id": session_id,
                "timestamp": milliseconds // 1000,
                "timestampMs": milliseconds,
                "release": release,
                "studies_metadata_hash": "0" * 40,
                "auth_scheme_vsn": 2,
                "protocol": "json",
                "via": via,
                "javastudies": ["3.66"],
            }
        )

    def redirect(self, host: str) -> None:
        """Queue the greeting that sends the client to another host."""
        self._queue({"redirect": host})

    def heartbeat(self) -> int:
        """Queue the next heartbeat and return its number, counted from 1."""
        self.heartbeats_sent += 1
        self._outbox.append(self._frame(f"~h~{self.heartbeats_sent}"))
        return self.heartbeats_sent

    def send(
        self,
        method: str,
        params: Sequence[Any],  # the wire's own positions, see the protocol reference
        stamps: tuple[int, int] | None = None,
    ) -> None:
        """Queue a message; *stamps* are the server's time in seconds and in milliseconds."""
        message: dict[str, Any] = {"m": method, "p": params}
        if stamps is not None:
            message["t"], message["t_ms"] = stamps
        self._queue(message)

    def receive_text(self, text: str) -> list[Request]:
        """Return what the client asked, in order; text that is no request is ``Malformed``.

        Bare text without any envelope (some clients send ``2`` to stay alive) is
        ``Malformed`` with the flaw ``unframed``, so that a server can let it pass.
        """
        requests = [self._request(payload) for payload in self._decoder.decode(text)]
        flaw = Flaw.FRAMING if requests or text.startswith("~m~") else Flaw.UNFRAMED
        return requests + [Malformed(flaw, piece) for piece in self._decoder.skipped]

    def texts_to_send(self) -> list[str]:
        """Return the queued texts, one websocket message each, and forget them."""
        texts, self._outbox = self._outbox, []
        return texts

    def _request(self, payload: str) -> Request:
        if payload.startswith("~h~"):
            number = heartbeat_number(payload)
            if number is None:
                return Malformed(Flaw.HEARTBEAT, payload)
            self.last_echo = max(self.last_echo, number)
            return HeartbeatEcho(number)
        try:
            call = _CALL.decode(payload)
        except msgspec.ValidationError:
            return Malformed(Flaw.SHAPE, payload)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return Malformed(Flaw.JSON, payload)
        return Call(call.m, call.p)

    def _queue(self, message: dict[str, Any]) -> None:
        self._outbox.append(self._frame(self._spell(message)))
