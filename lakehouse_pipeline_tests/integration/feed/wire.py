"""What the texts of a connection must become, told by other means than the worker's.

``Wire`` is a fault that changes nothing: last in a server's list, it keeps what really leaves.
``expected`` reads that with a regular expression and ``json``, one text an envelope, and merges in
plain dicts: rows, refusals and their reasons, in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import polars as pl

from lakehouse_pipeline.feedserver.faults import Fault, Link
from lakehouse_pipeline.market.quotes import COLUMNS

ENVELOPE = re.compile(r"~m~(\d+)~m~")
TIMES = ("lp_time", "open_time")
BOOK = {"bid", "ask", "bid_size", "ask_size"}
SECOND = 1_000_000

Packet = tuple[str, dict[str, Any]]  # symbol and wire values
Refuse = Callable[[dict[str, Any]], str | None]


@dataclass(kw_only=True)
class Wire(Fault):
    """Keeps every text after all other faults, by connection, and lets *trouble* begin in time.

    On a busy machine a worker subscribes late: only what was sent tells that sound updates were.
    """

    trouble: Fault
    sound: int = 30  # texts sent before the trouble begins

    kept: dict[int, list[str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.trouble.at = timedelta.max

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # from the start
        kept = self.kept.setdefault(link.number, [])
        kept.append(text)
        if len(kept) == self.sound:
            self.trouble.at = link.opened
        return [text]

    def of_the_session(self) -> list[str]:
        """Return the texts of the one connection that got quotes."""
        (texts,) = [texts for texts in self.kept.values() if packets(texts)]
        return texts


@dataclass
class Expected:
    """``rows`` as ``landed`` gives them, ``rejects`` as (reason, payload)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[tuple[str, str]] = field(default_factory=list)


def packets(texts: list[str]) -> list[Packet]:
    """Return the quote packets among *texts* that can be read."""
    messages = [message for text in texts if (message := _read(text)) is not None]
    return [
        (quote["n"], quote["v"])
        for message in messages
        if message.get("m") == "qsd"
        for quote in [message["p"][1]]
    ]


def expected(texts: list[str], refuse: Refuse) -> Expected:
    """Return what *texts* must become; *refuse* names what is wrong with an update's values."""
    result = Expected()
    state: dict[str, dict[str, Any]] = {}
    restored: set[str] = set()
    for text in texts:
        payload = ENVELOPE.sub("", text, count=1)
        if payload.startswith("~h~") and _fits(text):
            continue
        message = _read(text)
        if message is None:
            result.rejects.append(("malformed_framing", text))
        elif message.get("m") == "quote_completed":
            restored.add(message["p"][1])
        elif message.get("m") == "qsd":
            name, values = packets([text])[0]
            known = {key: value for key, value in values.items() if key in COLUMNS}
            if (reason := refuse(known)) is not None:
                result.rejects.append((reason, name))
                continue
            seen = state.setdefault(name, {})
            if "lp" in known and "lp" in seen:
                restored.add(name)  # quote_completed was lost: the second price is news
            seen |= {key: None if value == 1e100 else value for key, value in known.items()}
            result.rows.append(_row(name, known, seen, restoring=name not in restored))
        elif "m" in message:
            result.rejects.append(("unknown_message", payload))
    return result


def landed(quotes: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of ``raw.quotes`` in the order of their numbers, as ``expected`` does.

    ``event_time`` is None where it is the time of receipt.
    """
    rows = []
    for row in quotes.sort("writer_id", "sequence").iter_rows(named=True):
        values = {key: row[column] for key, column in COLUMNS.items()}
        for key in TIMES:
            values[key] = None if values[key] is None else int(values[key].timestamp())
        happened = None if row["event_time"] == row["received_at"] else row["event_time"]
        rows.append(
            {
                **values,
                "symbol": row["symbol"],
                "kind": row["kind"],
                "changed": set(row["changed"].split(",")) - {""},
                "event_time": None if happened is None else int(happened.timestamp()),
            }
        )
    return rows


def _row(
    name: str, changed: dict[str, Any], seen: dict[str, Any], *, restoring: bool
) -> dict[str, Any]:
    kind = "restore" if restoring else _kind(set(changed))
    happened = kind in ("price", "volume", "time")
    return {
        **dict.fromkeys(COLUMNS),
        **seen,
        "symbol": name,
        "kind": kind,
        "changed": {COLUMNS[key] for key in changed},
        "event_time": seen.get("lp_time") if happened else None,
    }


def _kind(changed: set[str]) -> str:
    if "lp" in changed:
        return "price"
    if "lp_time" in changed:
        return "volume" if "volume" in changed else "time"
    if "volume" in changed and "open_time" not in changed:
        return "volume"
    return "quote" if changed & BOOK else "restore"


def _read(text: str) -> dict[str, Any] | None:
    if not _fits(text):
        return None
    try:
        message = json.loads(ENVELOPE.sub("", text, count=1))
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def _fits(text: str) -> bool:
    """Whether *text* is one envelope, its length counted in any of the units in use."""
    header = ENVELOPE.match(text)
    if header is None:
        return False
    payload = text[header.end() :]
    sizes = (len(payload), len(payload.encode()), len(payload.encode("utf-16-le")) // 2)
    return int(header[1]) in sizes
