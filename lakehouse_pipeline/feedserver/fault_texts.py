"""Faults of single messages.

Chance is a hash of what is sent, so a run can be repeated: a *share* of 0.1 strikes one text in
ten.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from lakehouse_pipeline.tradingview.frames import encode as frame

from .faults import Fault, Link
from .noise import struck

_LENGTH = re.compile(r"^~m~(\d+)~m~")
_STAMP = re.compile(r'"t_ms":(\d+)')


@dataclass(kw_only=True)
class Garbage(Fault):
    """A *share* of messages is followed by one that is no protocol at all."""

    share: float = 0.1
    text: str = '~m~12~m~{"m":"qsd","~h~ \u00ff'

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        return [text, self.text] if struck(self.share, "garbage", text) else [text]


@dataclass(kw_only=True)
class WrongLength(Fault):
    """A *share* of messages announces a length that is *by* too great."""

    share: float = 0.1
    by: int = 3

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        if not struck(self.share, "length", text):
            return [text]
        return [_LENGTH.sub(lambda length: f"~m~{int(length[1]) + self.by}~m~", text)]


@dataclass(kw_only=True)
class Duplicate(Fault):
    """A *share* of quote packets comes twice."""

    share: float = 0.1

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        return [text] * (1 + (_is_quote(text) and struck(self.share, "duplicate", text)))


@dataclass(kw_only=True)
class Reorder(Fault):
    """A *share* of quote packets comes after the next one."""

    share: float = 0.1
    _late: dict[int, str] = field(default_factory=dict, init=False)  # by connection

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        late = self._late.pop(link.number, None)
        if late is not None:
            return [text, late]
        if _is_quote(text) and struck(self.share, "reorder", text):
            self._late[link.number] = text
            return []
        return [text]


@dataclass(kw_only=True)
class Unknown(Fault):
    """A *share* of messages is followed by one of a method nobody knows."""

    share: float = 0.1

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        if not struck(self.share, "unknown", text):
            return [text]
        return [text, frame('{"m":"weather_update","p":["sunny",{"wind":3}]}')]


@dataclass(kw_only=True)
class Truncated(Fault):
    """A *share* of messages ends in the middle."""

    share: float = 0.1

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        return [text[: len(text) // 2] if struck(self.share, "truncated", text) else text]


@dataclass(kw_only=True)
class Late(Fault):
    """A *share* of quote packets comes only after *behind* further ones."""

    share: float = 0.1
    behind: int = 20
    _late: dict[int, list[tuple[int, str]]] = field(  # by connection: when due, and what
        default_factory=lambda: defaultdict(list), init=False
    )
    _seen: dict[int, int] = field(default_factory=lambda: defaultdict(int), init=False)

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        if not _is_quote(text):
            return [text]
        self._seen[link.number] = seen = self._seen[link.number] + 1
        late = self._late[link.number]
        due = [one for when, one in late if when <= seen]
        self._late[link.number] = late = [(when, one) for when, one in late if when > seen]
        if struck(self.share, "late", text):
            late.append((seen + self.behind, text))
            return due
        return [text, *due]


@dataclass(kw_only=True)
class RawText(Fault):
    """Text beyond ASCII is not escaped, and lengths *count* UTF-16 units or UTF-8 bytes.

    Every symbol gets *description*, so that there is such text.
    """

    count: Literal["utf16", "bytes"] = "utf16"
    description: str = "ビットコイン \u20ac \U0001f680"

    def quote(self, symbol: str, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # all symbols
        return values | {"description": self.description} if "description" in values else values

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        payload = _LENGTH.sub("", text)
        if not payload.startswith("{"):
            return [text]
        raw = json.dumps(json.loads(payload), ensure_ascii=False, separators=(",", ":"))
        return [f"~m~{len(raw.encode())}~m~{raw}" if self.count == "bytes" else frame(raw)]


@dataclass(kw_only=True)
class Bulky(Fault):
    """History comes in messages of at least *size* characters."""

    size: int = 3_000_000

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        payload = _LENGTH.sub("", text)
        if not payload.startswith('{"m":"timescale_update"'):
            return [text]
        return [frame(payload[:-1].ljust(self.size) + "}")]


@dataclass(kw_only=True)
class SkewedStamps(Fault):
    """A *share* of time stamps on messages is off by *by*, and runs backward from there."""

    share: float = 0.5
    by: timedelta = timedelta(hours=1)

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        if not struck(self.share, "stamp", text):
            return [text]
        skew = int(self.by.total_seconds() * 1000)
        payload = _LENGTH.sub("", text)
        return [frame(_STAMP.sub(lambda t: f'"t_ms":{int(t[1]) - skew}', payload))]


def _is_quote(text: str) -> bool:
    return '"m":"qsd"' in text[:30]
