"""Which values of an update can be true.

An update with one value that cannot be is refused whole, and the row that says so names why: a
price that was never traded must not reach a bar. Add a check here only for what no market can
show; what is merely unusual is recorded and flagged later. ``Credible`` says the same of an
update's usual spelling, for the decoder to check as it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypedDict

from msgspec import Meta

DAY = 86_400  # seconds; the feed's clock and ours differ by less
MICROS = 1_000_000
LARGEST = 1e18  # beyond any price or day's volume, and within 64 bits

_Positive = Annotated[float, Meta(gt=0, lt=LARGEST)]
_NotNegative = Annotated[float, Meta(ge=0, lt=LARGEST)]
_Finite = Annotated[float, Meta(gt=-LARGEST, lt=LARGEST)]
_Seconds = Annotated[int, Meta(gt=0, lt=10**11)]  # may still lie in the future
_Never = Annotated[int, Meta(gt=0, lt=0)]  # no value is: whoever carries it is not usual


class Credible(TypedDict, total=False):
    """An update's values where all are usual and credible; times are yet to be compared."""

    # In the wire's order, in which the decoder looks for them.
    volume: _NotNegative
    lp_time: _Seconds
    lp: _Positive
    chp: _Finite
    ch: _Finite
    ask: _NotNegative
    ask_size: _NotNegative
    bid: _NotNegative
    bid_size: _NotNegative
    high_price: _Positive
    low_price: _Positive
    open_price: _Positive
    prev_close_price: _Positive
    open_time: _Never  # a new day, or a static re-send
    currency_code: _Never
    description: _Never
    exchange: _Never
    minmov: _Never
    minmove2: _Never
    original_name: _Never
    pricescale: _Never
    pro_name: _Never
    short_name: _Never
    type: _Never
    typespecs: _Never
    update_mode: _Never


def incredible(values: Mapping[str, Any], received_at: int) -> str | None:
    """Return why an update cannot be true, or None.

    Args:
        values: wire keys; None is "no value" and always credible.
        received_at: epoch microseconds.
    """
    for key, value in values.items():
        if value is not None and not _CHECKS[key](value, received_at):
            return f"incredible_{key}"
    return None


def _is_number(value: object) -> bool:
    return value.__class__ is float or value.__class__ is int


def _positive(value: Any, _: int) -> bool:
    return _is_number(value) and 0 < value < LARGEST


def _not_negative(value: Any, _: int) -> bool:
    return _is_number(value) and 0 <= value < LARGEST


def _finite(value: Any, _: int) -> bool:
    return _is_number(value) and -LARGEST < value < LARGEST


def _past(value: Any, received_at: int) -> bool:
    """The feed's clock and ours may differ, but not by more than a day."""
    return _is_number(value) and 0 < value <= received_at / MICROS + DAY


def _text(value: Any, _: int) -> bool:
    return isinstance(value, str)


# Any: what the wire holds is what these judge.
_CHECKS: Mapping[str, Callable[[Any, int], bool]] = {
    "lp": _positive,
    "lp_time": _past,
    "volume": _not_negative,
    "ch": _finite,
    "chp": _finite,
    "bid": _not_negative,
    "ask": _not_negative,
    "bid_size": _not_negative,
    "ask_size": _not_negative,
    "open_price": _positive,
    "high_price": _positive,
    "low_price": _positive,
    "prev_close_price": _positive,
    "open_time": _past,
    "update_mode": _text,
}
