"""Every fault the server can have, one class each; `KINDS` is how files name them.

Chance is a hash of what is sent, so a run can be repeated. A text struck by a *share* of 0.1 is one
in ten. Add a fault here and to `KINDS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from lakehouse_pipeline.tradingview.frames import encode as frame

from .faults import Ending, Fault, Link
from .noise import key_of

_LENGTH = re.compile(r"^~m~(\d+)~m~")


@dataclass(kw_only=True)
class Drop(Fault):
    """Cuts the connections open at that time, without a closing handshake."""

    def ending(self, since: timedelta, link: Link) -> Ending | None:
        return Ending.DROP if link.opened < since else None


@dataclass(kw_only=True)
class Silence(Fault):
    """A half-open link: the connections open at that time stay open and hear nothing more."""

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:
        return [] if link.opened < since else [text]


@dataclass(kw_only=True)
class NoData(Fault):
    """The connections open at that time get heartbeats and no quotes."""

    def holds(self, since: timedelta, link: Link, symbol: str) -> bool:  # noqa: ARG002  # all symbols
        return link.opened < since


@dataclass(kw_only=True)
class Frozen(Fault):
    """*symbols* stand still for everybody."""

    symbols: list[str]

    def holds(self, since: timedelta, link: Link, symbol: str) -> bool:  # noqa: ARG002  # all links
        return symbol in self.symbols


@dataclass(kw_only=True)
class Refuse(Fault):
    """New connections get an HTTP *status* instead of a websocket."""

    status: int = 429

    def refuse(self) -> int | None:
        return self.status


@dataclass(kw_only=True)
class Ban(Fault):
    """Every connection is told that it is banned, and closed."""

    def ending(self, since: timedelta, link: Link) -> Ending | None:  # noqa: ARG002  # all links
        return Ending.BAN


@dataclass(kw_only=True)
class Delayed(Fault):
    """The feed runs *by* behind the market and says so in ``update_mode``."""

    by: timedelta = timedelta(minutes=15)

    def delay(self) -> timedelta:
        return self.by


@dataclass(kw_only=True)
class Garbage(Fault):
    """A *share* of messages is followed by one that is no protocol at all."""

    share: float = 0.1
    text: str = '~m~12~m~{"m":"qsd","~h~ \u00ff'

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        return [text, self.text] if _struck(self.share, "garbage", text) else [text]


@dataclass(kw_only=True)
class WrongLength(Fault):
    """A *share* of messages announces a length that is *by* too great."""

    share: float = 0.1
    by: int = 3

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        if not _struck(self.share, "length", text):
            return [text]
        return [_LENGTH.sub(lambda length: f"~m~{int(length[1]) + self.by}~m~", text)]


@dataclass(kw_only=True)
class Duplicate(Fault):
    """A *share* of quote packets comes twice."""

    share: float = 0.1

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        return [text] * (1 + (_is_quote(text) and _struck(self.share, "duplicate", text)))


@dataclass(kw_only=True)
class Reorder(Fault):
    """A *share* of quote packets comes after the next one."""

    share: float = 0.1
    _late: dict[int, str] = field(default_factory=dict, init=False)  # by connection

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        late = self._late.pop(link.number, None)
        if late is not None:
            return [text, late]
        if _is_quote(text) and _struck(self.share, "reorder", text):
            self._late[link.number] = text
            return []
        return [text]


@dataclass(kw_only=True)
class BadValues(Fault):
    """A *share* of packets has *value* (null, 1e100, …) in place of each of *fields* it carries."""

    fields: list[str]
    value: Any = None  # any JSON value
    share: float = 0.1

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        if not _struck(self.share, symbol, values):
            return values
        return {name: self.value if name in self.fields else was for name, was in values.items()}


@dataclass(kw_only=True)
class VolumeBackwards(Fault):
    """A *share* of packets tells a volume smaller by the factor *by*; the next tells it right."""

    by: float = 0.01
    share: float = 0.1

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:
        if "volume" not in values or not _struck(self.share, symbol, values):
            return values
        return values | {"volume": values["volume"] * (1.0 - self.by)}


@dataclass(kw_only=True)
class Unknown(Fault):
    """A *share* of messages is followed by one of a method nobody knows."""

    share: float = 0.1

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        if not _struck(self.share, "unknown", text):
            return [text]
        return [text, frame('{"m":"weather_update","p":["sunny",{"wind":3}]}')]


KINDS: dict[str, type[Fault]] = {
    "drop": Drop,
    "silence": Silence,
    "no_data": NoData,
    "frozen": Frozen,
    "refuse": Refuse,
    "ban": Ban,
    "delayed": Delayed,
    "garbage": Garbage,
    "wrong_length": WrongLength,
    "duplicate": Duplicate,
    "reorder": Reorder,
    "bad_values": BadValues,
    "volume_backwards": VolumeBackwards,
    "unknown": Unknown,
}


def _struck(share: float, *about: object) -> bool:
    return key_of(*about) % 10_000 < share * 10_000


def _is_quote(text: str) -> bool:
    return '"m":"qsd"' in text[:30]
