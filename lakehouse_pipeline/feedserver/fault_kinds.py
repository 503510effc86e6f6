"""Every fault the server can have, by the name files give it.

Here are those of whole connections; `fault_texts` spoils single messages, `fault_values` what
quotes say. Add a fault to the module of its kind, and to `KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from .fault_texts import (
    Bulky,
    Duplicate,
    Garbage,
    Late,
    RawText,
    Reorder,
    SkewedStamps,
    Truncated,
    Unknown,
    WrongLength,
)
from .fault_values import BadValues, ClockStep, DayRoll, VolumeBackwards
from .faults import Ending, Fault, Link


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
class SlowDrip(Fault):
    """Every message comes in pieces, *characters* a second of market time."""

    characters: float = 20.0

    def drip(self) -> float | None:
        return self.characters


@dataclass(kw_only=True)
class Redirect(Fault):
    """New connections are greeted with another *host* to go to, such as ``127.0.0.1:8080``."""

    host: str

    def redirect(self) -> str | None:
        return self.host


@dataclass(kw_only=True)
class ExpiredToken(Fault):
    """*tokens* are good no more: who shows one, or has shown it last, is told and closed."""

    tokens: list[str]

    def refuses(self, token: str) -> bool:
        return token in self.tokens


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
    "slow_drip": SlowDrip,
    "redirect": Redirect,
    "expired_token": ExpiredToken,
    "truncated": Truncated,
    "late": Late,
    "raw_text": RawText,
    "bulky": Bulky,
    "skewed_stamps": SkewedStamps,
    "clock_step": ClockStep,
    "day_roll": DayRoll,
}
