"""The token a worker shows: given, or had for the session cookies and renewed before it ends.

A token that cannot be renewed changes nothing by itself: quotes go on, anonymously at worst.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NoReturn

import structlog

from lakehouse_pipeline.errors import FeedError
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS
from lakehouse_pipeline.tradingview.token import expires_at
from lakehouse_pipeline.tradingview.web import fetch_token

log = structlog.get_logger()

AHEAD = timedelta(minutes=2)  # renewed so long before it ends; one lives about 15 minutes
UNKNOWN_LIFE = timedelta(minutes=10)  # of a token that does not say
PAUSE = timedelta(minutes=1)  # after a failure, and the least between two tokens


class Tokens:
    """``current`` is the token to show now; ``run`` keeps it fresh. *now* is the wall clock."""

    def __init__(self, feed: FeedSettings, *, now: Callable[[], datetime]) -> None:
        self.current = ANONYMOUS if feed.token is None else feed.token.get_secret_value()
        self._feed = feed
        self._now = now
        self._refused = asyncio.Event()
        self._known = asyncio.Event()
        if not self.is_anonymous:
            self._known.set()

    @property
    def is_anonymous(self) -> bool:
        return self.current == ANONYMOUS

    async def wait_for_one(self) -> None:
        """Return when there is a token."""
        await self._known.wait()

    def refused(self) -> None:
        """Say that the feed no longer takes the current token."""
        self._refused.set()

    async def run(self) -> NoReturn:
        """Renew the token before it ends, or as soon as it is refused, for ever."""
        if self._feed.sessionid is None:
            await asyncio.Event().wait()
        while True:
            if not self._is_fresh():
                try:
                    self.current = await fetch_token(self._feed)
                    self._known.set()
                    self._refused.clear()
                    log.info("token_renewed", expires_at=str(expires_at(self.current)))
                except FeedError as error:
                    log.warning("token_not_renewed", problem=str(error))
            await self._wait()

    def _is_fresh(self) -> bool:
        if self.is_anonymous or self._refused.is_set():
            return False
        end = expires_at(self.current)
        return end is not None and self._now() < end - AHEAD

    async def _wait(self) -> None:
        """Wait until the token must be renewed, at least for the pause."""
        await asyncio.sleep(PAUSE.total_seconds())
        end = expires_at(self.current)
        rest = UNKNOWN_LIFE if end is None else end - AHEAD - self._now()
        if self.is_anonymous or rest <= timedelta(0):
            return
        try:
            async with asyncio.timeout(rest.total_seconds()):
                await self._refused.wait()
        except TimeoutError:
            pass  # its time is over
