"""``market.history_1m`` and ``raw.fetches``: ask the feed for what is missing and land the answers.

The only build that looks outside the lake. What to ask follows from gaps, coverage and earlier
answers. Bars land before the next question and what was asked at the end, so a crash in between
asks again and loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import structlog

from lakehouse_pipeline.errors import EntitlementError, FeedError, NoAnswer, SymbolError
from lakehouse_pipeline.ingest.clock import Clock, make_clock
from lakehouse_pipeline.ingest.history import History, open_history
from lakehouse_pipeline.ingest.limiter import ConnectLimiter
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market.coverage import LATENESS, wanted
from lakehouse_pipeline.market.repair import Ask, Ended, plan, revisions
from lakehouse_pipeline.market.schemas import FETCHES
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor
from lakehouse_pipeline.settings import Settings

from .bars import HISTORY_1M
from .gaps import GAPS
from .inputs import COVERAGE, FETCHED
from .kinds import kinds_on
from .result import write_slice

MAX_HUNG = 3  # questions running without an answer before the round is given up

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What one round of repair did for an exchange; ``bars`` are those new or revised.

    Whoever is neither answered nor refused kept the feed silent, and is asked again next round.
    """

    asked: int
    answered: int
    refused: int
    bars: int

    @property
    def silent(self) -> int:
        return self.asked - self.answered - self.refused


def repair(
    lake: Lakehouse, settings: Settings, exchange: str, *, watermark: datetime
) -> RepairReport:
    """Fetch what gaps and finished days of *exchange* still need, as far as *watermark* has closed.

    Raises:
        FeedError: the feed gives nothing to anybody now; what came before it is landed.
    """
    asks = plan_repair(lake, settings, exchange, watermark=watermark)
    if not asks:
        return RepairReport(0, 0, 0, 0)
    return asyncio.run(ask_all(lake, settings, exchange, asks))


def plan_repair(
    lake: Lakehouse, settings: Settings, exchange: str, *, watermark: datetime
) -> list[Ask]:
    """Return what ``repair`` would ask the feed for."""
    reach = settings.history.reach
    # A gap is filed under the day it began on, a fetch under the time it was answered.
    window = TimeWindow(floor(watermark - reach, DAY) - DAY, floor(watermark, DAY) + 2 * DAY)
    gaps = lake.scan(GAPS, exchange=exchange, window=window).collect()
    fetches = lake.scan(FETCHED, exchange=exchange, window=window).collect()
    due = wanted(lake.scan(COVERAGE, exchange=exchange).collect())
    # What leaves a rolling counter was traded a day before.
    for symbol in kinds_on(lake, exchange, watermark.date()).keys() & due.keys():
        due[symbol] = [TimeWindow(w.start - DAY, w.end) for w in due[symbol]]
    return plan(gaps, fetches, due, watermark, reach=reach)


async def ask_all(
    lake: Lakehouse, settings: Settings, exchange: str, asks: Sequence[Ask]
) -> RepairReport:
    """Put *asks* to the feed in their order and land the answers.

    A question that hangs costs its own time and no other's: the rest goes on a new connection.

    Raises:
        NoAnswer: if three questions running hang; whatever it is, it is no symbol's fault.
        FeedError: see ``repair``.
    """
    clock = make_clock(settings.clock)
    limiter = ConnectLimiter(settings.state_dir / "connects", settings.feed.connect_interval)
    waiting = deque(asks)
    facts: list[pl.DataFrame] = []
    refused = bars = hung = 0

    async def on_one_connection() -> None:
        nonlocal refused, bars, hung
        opened = open_history(settings.feed, settings.history, clock=clock, limiter=limiter)
        async with opened as feed:
            while waiting:
                ask = waiting.popleft()
                try:
                    answer = await feed.fetch(ask.symbol, ask.since)
                except (SymbolError, EntitlementError) as error:
                    log.warning("history_refused", symbol=ask.symbol, problem=str(error))
                    facts.append(_refusal(exchange, ask, error, clock))
                    refused += 1
                else:
                    bars += await asyncio.to_thread(land, lake, exchange, ask.symbol, answer)
                    facts.append(_fact(exchange, ask, answer, clock))
                hung = 0

    try:
        while waiting:
            try:
                await on_one_connection()
            except NoAnswer as error:
                hung += 1
                log.warning("history_not_answered", problem=str(error), left=len(waiting))
                if hung >= MAX_HUNG:
                    raise
    finally:
        if facts:  # in one file: a file for each question would be thousands a month
            lake.append(FETCHED, pl.concat(facts))
    answered = len(facts) - refused
    log.info("history_fetched", exchange=exchange, symbols=answered, refused=refused, bars=bars)
    return RepairReport(len(asks), answered, refused, bars)


def land(lake: Lakehouse, exchange: str, symbol: str, answer: History) -> int:
    """Add the bars of *answer* that are new or changed and return how many there were.

    Minutes the feed no longer gives stay as they were.
    """
    if answer.bars.is_empty():
        return 0
    names = (symbol,)
    fetched = _span(answer.bars)
    known = lake.scan(HISTORY_1M, exchange=exchange, window=fetched, symbols=names).collect()
    news = revisions(known, answer.bars)
    if news.is_empty():
        return 0
    changed = _span(news)

    def compute() -> pl.DataFrame:
        stored = lake.scan(HISTORY_1M, exchange=exchange, window=changed, symbols=names).collect()
        added = revisions(stored, answer.bars).filter(
            pl.col("open_time").is_between(changed.start, changed.end, closed="left")
        )
        return pl.concat([stored.join(added, on=["symbol", "open_time"], how="anti"), added])

    write_slice(lake, HISTORY_1M, Slice(exchange, changed, names), compute)
    return news.height


def _span(bars: pl.DataFrame) -> TimeWindow:
    opens = bars["open_time"].sort()
    return TimeWindow(opens[0], opens[-1] + MINUTE)


def _fact(exchange: str, ask: Ask, answer: History, clock: Clock) -> pl.DataFrame:
    asked = (exchange, ask.symbol, ask.since, max(answer.until, ask.since))
    told = (answer.reached, answer.ended.value, None, clock.now())
    return pl.DataFrame([(*asked, *told)], schema=FETCHES, orient="row")


def _refusal(exchange: str, ask: Ask, error: FeedError, clock: Clock) -> pl.DataFrame:
    is_unknown = isinstance(error, SymbolError)
    ended = Ended.UNKNOWN_SYMBOL if is_unknown else Ended.NOT_ENTITLED
    now = clock.now()
    until = max(floor(now - LATENESS, MINUTE), ask.since)
    row = (exchange, ask.symbol, ask.since, until, None, ended.value, error.problem, now)
    return pl.DataFrame([row], schema=FETCHES, orient="row")
