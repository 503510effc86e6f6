"""The client half of the protocol: verbs become texts to send, received text becomes events.

No socket and no clock: after every call that queues something, send what ``texts_to_send()``
returns, one websocket text message each. A heartbeat is answered by ``receive_text`` itself and
its echo goes out before anything queued earlier, because a late echo ends the connection. Session,
series and study ids are the caller's own and come back verbatim in the events; nothing survives a
reconnect. The other half is ``server_protocol``; what events mean is in ``messages``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lakehouse_pipeline.market.windows import TimeWindow

from .frames import FrameDecoder, encode
from .messages import Event, Flaw, Heartbeat, Malformed
from .parsing import parse

ANONYMOUS = "unauthorized_user_token"
MAX_SYMBOLS_PER_MESSAGE = 50
QUOTE_FIELDS: tuple[str, ...] = (
    *("lp", "lp_time", "volume", "ch", "chp", "bid", "ask", "bid_size", "ask_size"),
    *("open_price", "high_price", "low_price", "prev_close_price", "open_time"),
    *("pricescale", "minmov", "minmove2", "currency_code", "update_mode", "current_session"),
    *("type", "typespecs", "short_name", "pro_name", "original_name", "exchange", "description"),
)
"""What the lake records; asking for less keeps the feed's messages small."""


class ClientProtocol:
    """One connection, seen from the client."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        """Its counters tell how much text was no envelope."""
        self.last_received: datetime | None = None
        """When the newest websocket message came; heartbeats count."""
        self._echoes: list[str] = []
        self._outbox: list[str] = []

    def receive_text(self, text: str, received_at: datetime) -> list[Event]:
        """Return the events of one websocket message, in order; heartbeats are answered already.

        Text that is not the protocol comes as ``Malformed`` events; nothing is raised.
        """
        self.last_received = received_at
        events: list[Event] = []
        for payload in self.decoder.decode(text):
            event = parse(payload)
            if event.__class__ is Heartbeat:
                self._echoes.append(encode(payload))
            events.append(event)
        if self.decoder.skipped:
            events.extend(Malformed(Flaw.FRAMING, piece) for piece in self.decoder.skipped)
        return events

    def texts_to_send(self) -> list[str]:
        """Return the queued texts, echoes first, and forget them."""
        texts = self._echoes + self._outbox
        self._echoes, self._outbox = [], []
        return texts

    # Who we are: the token first, before any session.

    def set_auth_token(self, token: str = ANONYMOUS) -> None:
        """Log in, or renew the token of the living connection."""
        self._send("set_auth_token", token)

    def set_locale(self, language: str = "en", country: str = "US") -> None:
        self._send("set_locale", language, country)

    # Quotes.

    def quote_create_session(self, session: str) -> None:
        self._send("quote_create_session", session)

    def quote_set_fields(self, session: str, fields: Sequence[str] = QUOTE_FIELDS) -> None:
        """Say which fields to send; without it the feed sends all it has."""
        self._send("quote_set_fields", session, *fields)

    def quote_add_symbols(self, session: str, names: Sequence[str]) -> None:
        """Subscribe plain names such as ``BINANCE:BTCUSDT``, in batches; none is acknowledged.

        No flags follow the names: the feed refuses them.
        """
        self._send_in_batches("quote_add_symbols", session, names)

    def quote_remove_symbols(self, session: str, names: Sequence[str]) -> None:
        self._send_in_batches("quote_remove_symbols", session, names)

    def quote_delete_session(self, session: str) -> None:
        self._send("quote_delete_session", session)

    # Charts: one series a session, or the feed refuses the second.

    def chart_create_session(self, session: str) -> None:
        self._send("chart_create_session", session, "")

    def resolve_symbol(self, session: str, symbol_id: str, name: str) -> None:
        """Give the plain *name* an id for ``create_series``, which need not wait for the answer."""
        symbol = {"adjustment": "splits", "session": "regular", "symbol": name}
        self._send("resolve_symbol", session, symbol_id, "=" + _dump(symbol))

    def create_series(
        self,
        session: str,
        series: str,
        *,
        turnaround: str,
        symbol_id: str,
        resolution: str,
        count: int,
        range_: TimeWindow | None = None,
    ) -> None:
        """Ask for the newest *count* bars, or for those of *range_* (*count* is then 0).

        The *turnaround* is echoed in every answer. Of the resolutions ``1`` is a minute, ``1D`` a
        day, ``1S`` a second (paid plans only).
        """
        timeframe = "" if range_ is None else _range(range_)
        self._send(
            "create_series", session, series, turnaround, symbol_id, resolution, count, timeframe
        )

    def request_more_data(self, session: str, series: str, count: int) -> None:
        """Ask for *count* bars older than those sent."""
        self._send("request_more_data", session, series, count)

    def remove_series(self, session: str, series: str) -> None:
        self._send("remove_series", session, series)

    def chart_delete_session(self, session: str) -> None:
        self._send("chart_delete_session", session)

    # Studies: computed by the feed on a series; refused without a token.

    def create_study(
        self,
        session: str,
        study: str,
        *,
        turnaround: str,
        series: str,
        script: str,
        inputs: Mapping[str, Any],  # numbers, texts or objects, as the study's metadata says
    ) -> None:
        """Ask for the plots of *script*, such as ``Script@tv-scripting-101!``."""
        self._send("create_study", session, study, turnaround, series, script, dict(inputs))

    def remove_study(self, session: str, study: str) -> None:
        self._send("remove_study", session, study)

    def _send_in_batches(self, method: str, session: str, names: Sequence[str]) -> None:
        for first in range(0, len(names), MAX_SYMBOLS_PER_MESSAGE):
            self._send(method, session, *names[first : first + MAX_SYMBOLS_PER_MESSAGE])

    def _send(self, method: str, *params: Any) -> None:  # Any: the wire's own positions
        self._outbox.append(encode(_dump({"m": method, "p": params})))


def _dump(value: Any) -> str:  # Any: whatever JSON can hold
    """Return compact JSON in ASCII, of which every unit of length agrees."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _range(window: TimeWindow) -> str:
    return f"r,{int(window.start.timestamp())}:{int(window.end.timestamp())}"
