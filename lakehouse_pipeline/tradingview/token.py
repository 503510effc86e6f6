"""What a token says of itself: until when it is good. Its signature is the feed's business."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

import msgspec

from .protocol import ANONYMOUS


class _Claims(msgspec.Struct):
    exp: float | None = None


def unless_over(token: str | None, now: datetime) -> str:
    """Return *token* if there is one and its time is not over, else the anonymous one."""
    if token is None:
        return ANONYMOUS
    end = expires_at(token)
    return token if end is None or now < end else ANONYMOUS


def expires_at(token: str) -> datetime | None:
    """Return when *token*, a JWT, ends; None if it is none or does not say."""
    try:
        _, claims, _ = token.split(".")
        padded = claims + "=" * (-len(claims) % 4)
        exp = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Claims).exp
        return None if exp is None else datetime.fromtimestamp(exp, tz=UTC)
    except (ValueError, OverflowError, OSError, binascii.Error, msgspec.MsgspecError):
        return None
