"""The token a worker shows: given, or had for the session cookies and renewed before it ends.

A token that ends, is refused or cannot be renewed changes nothing by itself: quotes go on,
anonymously at worst.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NoReturn

import structlog

from lakehouse_pipeline.errors import AuthError, FeedError
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS
from lakehouse_pipeline.tradingview.token import expires_at, unless_over
from lakehouse_pipeline.tradingview.web import fetch_token

from .backoff import doubled

log = structlog.get_logger()

AHEAD = timedelta(minutes=2)  # renewed so long before it ends; one lives about 15 minutes
UNKNOWN_LIFE = timedelta(minutes=10)  # of a token that does not say
PAUSE = timedelta(minutes=1)  # after a failure, and the least between two tokens
LONGEST_PAUSE = timedelta(hours=1)  # when each is refused, which costs a connection
MEND = "Set LAKEHOUSE_FEED__SESSIONID or LAKEHOUSE_FEED__TOKEN anew; till then it is anonymous."


class Tokens:
    """``show`` gives the token to show now; ``run`` keeps it fresh. *now* is the wall clock."""

    def __init__(self, feed: FeedSettings, *, now: Callable[[], datetime]) -> None:
        self._token = None if feed.token is None else feed.token.get_secret_value()
        self._feed = feed
        self._now = now
        self._shown = ANONYMOUS
        self._last_refused: str | None = None
        self._refusals = 0  # in a row
        self._refused = asyncio.Event()
        self._known = asyncio.Event()
        if self.current != ANONYMOUS:
            self._known.set()

    @property
    def current(self) -> str:
        """A token that is neither over nor refused, or the anonymous one."""
        return unless_over(self._token, self._now())

    def show(self) -> str:
        """Return ``current``, for the connection to show; ``refused`` speaks of it."""
        self._shown = self.current
        return self._shown

    async def wait_for_one(self) -> None:
        """Return when there is a token."""
        await self._known.wait()

    def refused(self) -> bool:
        """Take back the token shown last, which the feed does not want; tell if there was one."""
        if self._shown == ANONYMOUS:
            return False
        self._last_refused = self._shown
        if self._token == self._shown:
            self._token = None
            self._refusals += 1
            self._refused.set()
        log.warning("token_refused", renewable=self._feed.sessionid is not None, mend=MEND)
        return True

    async def run(self) -> NoReturn:
        """Renew the token before it ends, or as soon as it is refused, for ever."""
        if self._feed.sessionid is None:
            await self._watch_it_end()
        while True:
            if self._token is None or expires_at(self._token) is None or self._rest() <= AHEAD:
                await self._renew()
            await asyncio.sleep(self._pause().total_seconds())
            if self._token is not None:
                await self._wait(self._rest() - AHEAD)

    async def _renew(self) -> None:
        try:
            token = await fetch_token(self._feed)
            if token == self._last_refused:
                raise AuthError("The feed gave the token again that it refuses.")
        except FeedError as error:
            log.warning("token_not_renewed", problem=str(error))
            return
        self._token = token
        self._refused.clear()
        self._known.set()
        log.info("token_renewed", expires_at=str(expires_at(token)))

    def _pause(self) -> timedelta:
        """Return the least time between two tokens; it doubles with each that is refused."""
        return doubled(PAUSE, self._refusals, longest=LONGEST_PAUSE)

    async def _watch_it_end(self) -> NoReturn:
        """Say once that the token given is over; nothing renews it."""
        if self._token is not None and expires_at(self._token) is not None:
            await self._wait(self._rest())
            if self._token is not None:
                log.warning("token_ended", mend=MEND)
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def _wait(self, length: timedelta) -> None:
        """Wait so long, or until the token is refused."""
        try:
            async with asyncio.timeout(max(length, timedelta()).total_seconds()):
                await self._refused.wait()
        except TimeoutError:
            self._refusals = 0  # it was good all its time

    def _rest(self) -> timedelta:
        """Return how long the token is still good."""
        assert self._token is not None
        end = expires_at(self._token)
        return AHEAD + UNKNOWN_LIFE if end is None else end - self._now()
