"""One payload to one event, whatever the payload is.

``parse`` never raises: text it cannot read becomes ``Malformed``, a method nobody acts on becomes
``Unknown``. The table at the end maps each method to its reader; the shapes in the middle say how
the wire differs from the event.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from .messages import (
    NO_VALUE,
    CriticalFailure,
    Event,
    Flaw,
    Heartbeat,
    Hello,
    HistoryBar,
    HistoryUpdate,
    Malformed,
    ProtocolFailure,
    QuoteCompleted,
    QuoteUpdate,
    Redirect,
    SeriesCompleted,
    SeriesFailed,
    SeriesLoading,
    SeriesTimeframe,
    StudyCompleted,
    StudyFailed,
    StudyLoading,
    StudyPoint,
    SymbolFailed,
    SymbolResolved,
    Unknown,
    heartbeat_number,
    missing,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")
V = TypeVar("V")

# What a quote's field may hold. The bounds let msgspec itself find the feed's "no value", so that
# the usual update needs no second look at each field.
_Number = Annotated[float, msgspec.Meta(gt=-NO_VALUE, lt=NO_VALUE)]
_Present = _Number | int | str | bool | list[Any] | dict[str, Any] | None


def parse(payload: str) -> Event:
    """Return the event one payload stands for."""
    if payload.startswith('{"m":"qsd"'):  # nearly every payload of a recording worker
        try:
            params = _decode_quote(payload).p
        except (ValueError, RecursionError):
            pass  # it holds a "no value", or is no quote after all: look closer below
        else:
            quote = params.quote
            return QuoteUpdate(params.session, quote.n, quote.s, quote.v, quote.errmsg)
    try:
        if payload.startswith("~h~"):
            number = heartbeat_number(payload)
            return Malformed(Flaw.HEARTBEAT, payload) if number is None else Heartbeat(number)
        return _parse_json(payload.removeprefix("~j~"))
    except (msgspec.ValidationError, OverflowError):
        return Malformed(Flaw.SHAPE, payload)
    except (ValueError, RecursionError):  # msgspec's syntax errors, and lone surrogates
        return Malformed(Flaw.JSON, payload)


# The wire's shapes, where an event's own fields differ from them.


class _Message(msgspec.Struct):
    m: str = ""
    p: msgspec.Raw = msgspec.Raw(b"[]")


class _Greeting(msgspec.Struct):
    session_id: str | None = None
    redirect: str | None = None
    timestamp: float | None = None
    timestampMs: float | None = None  # noqa: N815  # the wire's spelling
    release: str = ""


class _Quote(msgspec.Struct, Generic[V], gc=False):
    n: str
    s: str = "ok"
    v: dict[str, V] = {}
    errmsg: str = ""


class _QuoteParams(msgspec.Struct, Generic[V], array_like=True, gc=False):
    session: str
    quote: _Quote[V]


class _QuoteMessage(msgspec.Struct, gc=False):
    p: _QuoteParams[_Present]


class _Point(msgspec.Struct):
    v: list[float | None]


class _Block(msgspec.Struct):
    s: list[_Point] | None = None
    st: list[_Point] | None = None


class _HistoryParams(msgspec.Struct, array_like=True):
    session: str
    blocks: dict[str, _Block]


class _SeriesFlags(msgspec.Struct):
    data_completed: str | None = None


class _CompletedParams(msgspec.Struct, array_like=True):
    session: str
    series: str
    mode: str = ""
    turnaround: str = ""
    flags: _SeriesFlags = msgspec.field(default_factory=_SeriesFlags)


def _parse_json(payload: str) -> Event:
    message = _MESSAGE.decode(payload)
    if not message.m:
        return _greeting(_GREETING.decode(payload))
    read = _READERS.get(message.m)
    return read(message.p) if read else Unknown(message.m, payload)


def _greeting(greeting: _Greeting) -> Event:
    if greeting.redirect is not None:
        return Redirect(greeting.redirect)
    if greeting.session_id is None:
        raise msgspec.ValidationError("neither a message nor a greeting")
    if greeting.timestampMs is not None:
        server_time: datetime | None = _time(greeting.timestampMs / 1000)
    else:
        server_time = None if greeting.timestamp is None else _time(greeting.timestamp)
    return Hello(greeting.session_id, server_time, greeting.release)


def _quote_update(params: _QuoteParams[Any]) -> QuoteUpdate:
    quote = params.quote
    values = {
        key: missing(value) if isinstance(value, float) else value for key, value in quote.v.items()
    }
    return QuoteUpdate(params.session, quote.n, quote.s, values, quote.errmsg)


def _history_update(params: _HistoryParams) -> HistoryUpdate:
    series: dict[str, list[HistoryBar]] = {}
    studies: dict[str, list[StudyPoint]] = {}
    for key, block in params.blocks.items():
        if block.s is not None:
            bars = [_bar(point.v) for point in block.s]
            series[key] = [bar for bar in bars if bar is not None]
        if block.st is not None:
            studies[key] = [_study_point(point.v) for point in block.st]
    return HistoryUpdate(params.session, series, studies)


def _bar(values: list[float | None]) -> HistoryBar | None:
    if len(values) < 5:
        raise msgspec.ValidationError("a bar has a time and four prices")
    time, *prices = values
    open_, high, low, close = [missing(price) for price in prices[:4]]
    if open_ is None or high is None or low is None or close is None:
        return None
    volume = missing(values[5]) if len(values) > 5 else None
    return HistoryBar(_time(time), open_, high, low, close, volume)


def _study_point(values: list[float | None]) -> StudyPoint:
    if not values:
        raise msgspec.ValidationError("a study's point has a time")
    return StudyPoint(_time(values[0]), tuple(missing(value) for value in values[1:]))


def _series_completed(params: _CompletedParams) -> SeriesCompleted:
    return SeriesCompleted(
        params.session,
        params.series,
        params.mode,
        params.turnaround,
        params.flags.data_completed,
    )


def _time(seconds: float | None) -> datetime:
    if seconds is None:
        raise msgspec.ValidationError("a time was null")
    return _EPOCH + timedelta(seconds=seconds)


_MESSAGE = msgspec.json.Decoder(_Message)
_GREETING = msgspec.json.Decoder(_Greeting)
_decode_quote = msgspec.json.Decoder(_QuoteMessage).decode


def _direct(shape: type[Any]) -> Callable[[msgspec.Raw], Event]:
    """Return the reader of an event whose fields are the wire's positions."""
    decode: Callable[[msgspec.Raw], Event] = msgspec.json.Decoder(shape).decode
    return decode


def _shaped(shape: type[T], build: Callable[[T], Event]) -> Callable[[msgspec.Raw], Event]:
    decode = msgspec.json.Decoder(shape).decode
    return lambda params: build(decode(params))


_READERS: dict[str, Callable[[msgspec.Raw], Event]] = {
    "qsd": _shaped(_QuoteParams[Any], _quote_update),
    "quote_completed": _direct(QuoteCompleted),
    "series_loading": _direct(SeriesLoading),
    "symbol_resolved": _direct(SymbolResolved),
    "symbol_error": _direct(SymbolFailed),
    "series_timeframe": _direct(SeriesTimeframe),
    "timescale_update": _shaped(_HistoryParams, _history_update),
    "du": _shaped(_HistoryParams, _history_update),
    "series_completed": _shaped(_CompletedParams, _series_completed),
    "series_error": _direct(SeriesFailed),
    "study_loading": _direct(StudyLoading),
    "study_completed": _direct(StudyCompleted),
    "study_error": _direct(StudyFailed),
    "critical_error": _direct(CriticalFailure),
    "protocol_error": _direct(ProtocolFailure),
}
