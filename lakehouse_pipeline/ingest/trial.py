"""Is each configured symbol given? One short session that subscribes to all and reads the answers.

``lakehouse doctor`` tells a typing error from a symbol this account may not see, before a night of
recording nothing. What a running worker does about refusals belongs to ``session``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.client import connect
from lakehouse_pipeline.tradingview.messages import Event, QuoteUpdate
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS, ClientProtocol

SESSION = "qs_lakehousetry"


class Verdict(StrEnum):
    """What the feed made of a subscription."""

    GIVEN = "given"
    DELAYED = "delayed"  # given, but not as it happens
    REFUSED = "refused"  # with the feed's own words
    SILENT = "silent"  # no answer in time


@dataclass(frozen=True, slots=True)
class Answer:
    symbol: str
    verdict: Verdict
    detail: str = ""


async def try_symbols(
    feed: FeedSettings,
    symbols: Sequence[str],
    *,
    patience: timedelta,
    now: Callable[[], datetime],
) -> list[Answer]:
    """Subscribe to *symbols* and return an answer for each, in their order.

    Ends when all have answered, and after *patience* whatever is missing.

    Raises:
        FeedError: as ``connect`` does, also when the feed leaves before all have answered.
    """
    answers: dict[str, Answer] = {}
    protocol = ClientProtocol()
    async with connect(feed, now=now) as connection:
        protocol.set_auth_token(feed.token.get_secret_value() if feed.token else ANONYMOUS)
        protocol.quote_create_session(SESSION)
        protocol.quote_set_fields(SESSION)
        protocol.quote_add_symbols(SESSION, symbols)
        await connection.send(protocol.texts_to_send())
        try:
            async with asyncio.timeout(patience.total_seconds()):
                async for text, at in connection:
                    for event in protocol.receive_text(text, at):
                        _note(event, answers)
                    await connection.send(protocol.texts_to_send())
                    if answers.keys() >= set(symbols):
                        break
        except TimeoutError:
            pass  # whoever has not answered by now is silent
    return [answers.get(symbol, Answer(symbol, Verdict.SILENT)) for symbol in symbols]


def _note(event: Event, answers: dict[str, Answer]) -> None:
    """Take the answer that *event* holds, if it holds one; a symbol's first one counts."""
    if not isinstance(event, QuoteUpdate) or event.name in answers:
        return
    if event.status != "ok":
        detail = event.errmsg or event.status
        answers[event.name] = Answer(event.name, Verdict.REFUSED, detail)
    elif "lp" in event.values or "update_mode" in event.values:
        mode = event.values.get("update_mode")
        delayed = isinstance(mode, str) and mode.startswith("delayed")
        verdict = Verdict.DELAYED if delayed else Verdict.GIVEN
        answers[event.name] = Answer(event.name, verdict, mode if isinstance(mode, str) else "")
