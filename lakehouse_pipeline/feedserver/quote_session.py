"""The quote sessions of one client: their fields, subscriptions and packets.

What a symbol's values are belongs to the market; when a packet may leave, to the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from lakehouse_pipeline.tradingview.server_protocol import dump

from .instruments import full_name
from .outlet import QuoteOutlet
from .refusal import Refused


class Broadcast:
    """One update on its way to many sessions: encoded once for each set of fields."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._chosen: dict[frozenset[str] | None, tuple[dict[str, Any], str]] = {}

    @property
    def is_trade(self) -> bool:
        """Whether something was traded, so that bars changed."""
        return "lp_time" in self._values

    def chosen(self, fields: frozenset[str] | None) -> tuple[dict[str, Any], str]:
        """Return the values a session with *fields* (None: all) asked for, and their JSON."""
        if fields not in self._chosen:
            values = self._values
            if fields is not None:
                values = {name: value for name, value in values.items() if name in fields}
            self._chosen[fields] = values, encode(values)
        return self._chosen[fields]


def encode(values: dict[str, Any]) -> str:
    """Return *values* as compact ASCII JSON, fast where nothing needs escaping."""
    text = msgspec.json.encode(values).decode()
    return text if text.isascii() else dump(values)


class QuoteSessions:
    """The quote sessions of one client, by the client's own names."""

    def __init__(self, outlet: QuoteOutlet, *, strict: bool) -> None:
        self._outlet = outlet
        self._strict = strict
        self._sessions: dict[str, QuoteSession] = {}

    def __iter__(self) -> Iterator[QuoteSession]:
        return iter(self._sessions.values())

    async def handle(self, method: str, params: list[Any]) -> None:
        """Do what a ``quote_…`` message asks; what changes nothing here is ignored.

        Raises:
            Refused: the parameters make no sense.
        """
        match method, params:
            case "quote_create_session", [str(name), *_]:
                self._sessions[name] = QuoteSession(name, self._outlet)
            case "quote_delete_session", [str(name), *_]:
                self._sessions.pop(name, None)
            case "quote_set_fields", [str(name), *fields]:
                self._session(method, name).set_fields(fields)
            case "quote_add_symbols", [str(name), *keys]:
                session = self._session(method, name)
                for key in self._symbol_keys(method, name, keys):
                    session.add(key)
                    await asyncio.sleep(0)  # a long list must not hold up the others
            case "quote_remove_symbols", [str(name), *keys]:
                for key in self._symbol_keys(method, name, keys):
                    self._session(method, name).remove(key)
            case (("quote_fast_symbols" | "quote_hibernate_all"), _):
                pass  # rates are the same for all; several clients hibernate and expect quotes

    def _session(self, method: str, name: str) -> QuoteSession:
        if name not in self._sessions:
            raise Refused(name, "unknown_session_id", method)
        return self._sessions[name]

    def _symbol_keys(self, method: str, name: str, keys: list[Any]) -> list[str]:
        """Return the symbols of *keys*; old clients append an object of flags."""
        if self._strict and not all(isinstance(key, str) for key in keys):
            raise Refused(name, "invalid_parameters", method)
        return [key for key in keys if isinstance(key, str)]


class QuoteSession:
    """One session: which symbols under which keys, and which fields of them."""

    def __init__(self, name: str, outlet: QuoteOutlet) -> None:
        self.keys: dict[str, set[str]] = {}
        """The keys subscribed with, by instrument; unknown symbols are not in it."""
        self._name = name
        self._fields: frozenset[str] | None = None  # None: all of them
        self._outlet = outlet
        self._waiting: dict[tuple[str, str], dict[str, Any]] = {}  # by symbol and key

    def set_fields(self, fields: list[Any]) -> None:
        """Replace the fields; a nested list counts as its elements, none as all fields."""
        if len(fields) == 1 and isinstance(fields[0], list):
            fields = fields[0]
        # `pro_name` always comes: one client drops a symbol that does not show it.
        self._fields = frozenset(map(str, fields)) | {"pro_name"} if fields else None

    def add(self, key: str) -> None:
        """Subscribe and send the full snapshot, or say that there is no such symbol."""
        symbol = full_name(key)
        if self._send_snapshot(symbol, key):
            self.keys.setdefault(symbol, set()).add(key)
        else:
            error = {"n": key, "s": "error", "errmsg": "no_such_symbol", "v": {}}
            self._outlet.send("qsd", [self._name, error])
        self._outlet.send("quote_completed", [self._name, key])

    def remove(self, key: str) -> None:
        symbol = full_name(key)
        keys = self.keys.get(symbol, set())
        keys.discard(key)
        if not keys:
            self.keys.pop(symbol, None)
        self._waiting.pop((symbol, key), None)

    def push(self, symbol: str, update: Broadcast) -> None:
        """Send what the session asked for of *update*, or keep it while packets must wait."""
        if symbol not in self.keys:
            return
        values, tail = update.chosen(self._fields)
        if not values:
            return
        for key in self.keys[symbol]:
            if (symbol, key) in self._waiting or self._outlet.holds(symbol):
                self._waiting.setdefault((symbol, key), {}).update(values)
            else:
                self._outlet.send_quote(self._name, key, values, tail)

    def flush(self) -> None:
        """Send what waited, as far as it may leave now."""
        for symbol, key in list(self._waiting):
            if not self._outlet.holds(symbol):
                values = self._waiting.pop((symbol, key))
                self._outlet.send_quote(self._name, key, values, encode(values))

    def resend(self) -> None:
        """Send the full snapshot of every symbol again."""
        for symbol, keys in self.keys.items():
            for key in keys:
                self._send_snapshot(symbol, key)

    def _send_snapshot(self, symbol: str, key: str) -> bool:
        known = self._outlet.snapshot(symbol)
        if known is None:
            return False
        self._waiting.pop((symbol, key), None)
        values, tail = Broadcast(known).chosen(self._fields)
        self._outlet.send_quote(self._name, key, values, tail)
        return True
