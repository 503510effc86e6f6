"""What the server says, as typed events; and what its refusals are in our error tree.

Events whose fields are the wire's own positions are ``array_like`` and decode as they stand; the
others are built in ``parsing``. Add an event when something above acts on it; a method nobody acts
on is ``Unknown``. Numbers at or beyond 1e99 are the feed's way to write "no value": None here.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from lakehouse_pipeline.errors import (
    AuthError,
    Banned,
    EntitlementError,
    FeedError,
    LimitError,
    ProtocolFault,
    StudyError,
    SymbolError,
)

NO_VALUE = 1e99
_HEARTBEAT = re.compile(r"~h~([0-9]{1,18})")

Reason = str | dict[str, Any] | None
"""Why something was refused: text, or an object holding a template and what fills it."""


class Flaw(StrEnum):
    """What was wrong with a malformed text."""

    UNFRAMED = "unframed"  # no envelope at all
    FRAMING = "framing"  # between or inside envelopes
    HEARTBEAT = "heartbeat"
    JSON = "json"
    SHAPE = "shape"  # JSON, but not a message of this protocol


class Hello(msgspec.Struct, frozen=True):
    """The greeting; *server_time* is the server's clock when it greeted."""

    session_id: str
    server_time: datetime | None
    release: str


class Redirect(msgspec.Struct, frozen=True):
    """Instead of a greeting: connect to *host* (a name, perhaps with a port)."""

    host: str


class Heartbeat(msgspec.Struct, frozen=True):
    number: int


class QuoteUpdate(msgspec.Struct, frozen=True, gc=False):
    """The changed fields of one symbol; *status* is ``ok``, ``error`` or ``permission_denied``.

    A field that is absent is unchanged; None is "no value".
    """

    session: str
    name: str  # exactly the string subscribed with
    status: str
    values: dict[str, Any]  # wire keys; numbers, texts, flags, lists
    errmsg: str


class QuoteCompleted(msgspec.Struct, frozen=True, array_like=True):
    """Follows the first data, or the refusal, of each symbol."""

    session: str
    name: str


class HistoryBar(msgspec.Struct, frozen=True):
    """One official bar; *volume* is None where the symbol has none."""

    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float | None


class StudyPoint(msgspec.Struct, frozen=True):
    """The values of a study's plots at one bar, in the order of its metadata."""

    time: datetime
    values: tuple[float | None, ...]


class SeriesLoading(msgspec.Struct, frozen=True, array_like=True):
    session: str
    series: str
    turnaround: str


class SymbolInfo(msgspec.Struct, frozen=True):
    """What a chart knows of a symbol; None where the feed says nothing."""

    full_name: str | None = None
    pro_name: str | None = None
    description: str | None = None
    exchange: str | None = None
    type: str | None = None
    typespecs: list[str] = []
    currency_code: str | None = None
    pricescale: float | None = None
    minmov: float | None = None
    session: str | None = None
    timezone: str | None = None
    volume_type: str | None = None
    visible_plots_set: str | None = None


class SymbolResolved(msgspec.Struct, frozen=True, array_like=True):
    session: str
    symbol_id: str
    info: SymbolInfo


class SymbolFailed(msgspec.Struct, frozen=True, array_like=True):
    session: str
    symbol_id: str
    reason: Reason
    kind: str | None = None
    value: Any = None  # text where seen


class SeriesTimeframe(msgspec.Struct, frozen=True, array_like=True):
    """The part of a series a chart would show."""

    session: str
    series: str
    turnaround: str
    first: int | None = None
    last: int | None = None
    timeframe: str | None = None
    is_default: bool = False


class HistoryUpdate(msgspec.Struct, frozen=True):
    """Bars and study points, new or replacing those of the same time; oldest first.

    History, each new bar and each tick of the running bar all arrive so. A bar without prices is
    the feed's "no value" and left out.
    """

    session: str
    series: dict[str, list[HistoryBar]]
    studies: dict[str, list[StudyPoint]]


class SeriesCompleted(msgspec.Struct, frozen=True):
    """All bars asked for were sent.

    *data_completed* is ``end`` (nothing older exists), ``limit`` (older ones are refused) or None.
    """

    session: str
    series: str
    mode: str
    turnaround: str
    data_completed: str | None


class SeriesFailed(msgspec.Struct, frozen=True, array_like=True):
    session: str
    series: str
    turnaround: str
    reason: Reason
    server: str | None = None


class StudyLoading(msgspec.Struct, frozen=True, array_like=True):
    session: str
    study: str
    turnaround: str


class StudyCompleted(msgspec.Struct, frozen=True, array_like=True):
    session: str
    study: str
    turnaround: str


class StudyFailed(msgspec.Struct, frozen=True, array_like=True):
    session: str
    study: str
    turnaround: str
    reason: Reason
    server: str | None = None


class CriticalFailure(msgspec.Struct, frozen=True, array_like=True):
    """One session was refused something; the connection lives on."""

    session: str
    reason: Reason
    detail: Any = None  # text where seen


class ProtocolFailure(msgspec.Struct, frozen=True, array_like=True):
    """The server will now drop the connection."""

    reason: Reason


class Unknown(msgspec.Struct, frozen=True):
    """A method nothing above acts on."""

    method: str
    payload: str


class Malformed(msgspec.Struct, frozen=True):
    """Text that is not the protocol, kept whole."""

    reason: Flaw
    text: str


Event = (
    Hello
    | Redirect
    | Heartbeat
    | QuoteUpdate
    | QuoteCompleted
    | SeriesLoading
    | SymbolResolved
    | SymbolFailed
    | SeriesTimeframe
    | HistoryUpdate
    | SeriesCompleted
    | SeriesFailed
    | StudyLoading
    | StudyCompleted
    | StudyFailed
    | CriticalFailure
    | ProtocolFailure
    | Unknown
    | Malformed
)


def heartbeat_number(payload: str) -> int | None:
    """Return N of ``~h~N``, or None."""
    match = _HEARTBEAT.fullmatch(payload)
    return int(match[1]) if match else None


def missing(value: float | None) -> float | None:
    """Return *value*, or None where it is the feed's "no value"."""
    return None if value is None or not -NO_VALUE < value < NO_VALUE else value


def to_error(event: Event) -> FeedError | None:
    """Return the error an event reports, or None: it reports none."""
    otherwise: type[FeedError] = FeedError  # what a wording nobody has seen yet becomes
    match event:
        case QuoteUpdate(name=name, status=status, errmsg=errmsg) if status != "ok":
            subject, text = name, errmsg or status
            otherwise = EntitlementError if status == "permission_denied" else SymbolError
        case SymbolFailed(symbol_id=symbol_id, reason=reason, kind=kind, value=value):
            parts = (_wording(reason), kind, value)
            subject, otherwise = f"Symbol {symbol_id}", SymbolError
            text = " ".join(str(part) for part in parts if part)
        case SeriesFailed(series=series, reason=reason):
            subject, text = f"Series {series}", _wording(reason)
        case StudyFailed(study=study, reason=reason):
            subject, text = f"Study {study}", _wording(reason)
            otherwise = StudyError
        case CriticalFailure(session=session, reason=reason, detail=detail):
            subject, otherwise = f"Session {session}", ProtocolFault
            text = f"{_wording(reason)} ({detail})"
        case ProtocolFailure(reason=reason):
            subject, text, otherwise = "Connection", _wording(reason), ProtocolFault
        case Malformed(reason=flaw, text=piece):
            return ProtocolFault(f"The feed sent malformed text ({flaw}): {piece[:80]!r}.")
        case _:
            return None
    problem = " ".join(f"{subject} was refused: {text}".split()).removesuffix(".") + "."
    for pattern, kind_of_error, mend in _MEANINGS:
        if pattern.search(text):
            return kind_of_error(problem, mend=mend)
    return otherwise(problem)


# Wordings the feed is known to use, in the order they are tried, and what each means for us.
_MEANINGS: tuple[tuple[re.Pattern[str], type[FeedError], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, mend)
    for pattern, kind, mend in (
        (r"^banned", Banned, "Stop connecting and find out why."),
        (r"auth.?token", AuthError, "Renew the token of LAKEHOUSE_FEED__TOKEN or do without."),
        (r"connections limit|exceed limit|maximum number of", LimitError, "Ask for fewer at once."),
        (
            r"permission.?denied|not_entitled|not_auth|custom_resolution|not allowed",
            EntitlementError,
            "The subscription does not include it.",
        ),
        (
            r"invalid symbol|no_such_symbol|resolve error|unsupported resolution",
            SymbolError,
            "Check its name in exchanges.yaml.",
        ),
    )
)


def _wording(reason: Reason) -> str:
    """Return a reason as text, its template filled."""
    if isinstance(reason, dict):
        filling = reason.get("ctx")
        values = filling if isinstance(filling, dict) else {}
        template = str(reason.get("error", reason))
        return re.sub(r"\{(\w+)\}", lambda hole: str(values.get(hole[1], hole[0])), template)
    return reason or "no reason given"
