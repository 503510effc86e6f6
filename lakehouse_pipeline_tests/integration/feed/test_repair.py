"""An outage, from the cut socket to repaired minutes: server, worker, builds, repair, verdict."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.build import reconciliation
from lakehouse_pipeline.build.bars import build_1m, build_1s, current_watermark
from lakehouse_pipeline.build.gaps import build_gaps
from lakehouse_pipeline.build.history import ask_all, plan_repair, repair
from lakehouse_pipeline.build.proof import (
    bars_match_quotes,
    minutes_equal_direct_ones,
    ohlc_is_consistent,
    rows_are_in_their_place,
    volume_is_conserved,
)
from lakehouse_pipeline.build.tick import tick_1m, tick_1s
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.faults import Fault, Link
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market import repair as repair_plan
from lakehouse_pipeline.market.quality import unconserved_volume
from lakehouse_pipeline.market.repair import Ask, Status
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow
from lakehouse_pipeline.settings import HistorySettings, Settings

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
START = datetime(2026, 3, 2, 12, 0, 20, tzinfo=UTC)
SPEED = 40.0
OUTAGE = timedelta(seconds=150), timedelta(seconds=130)  # from, for
LENGTH = timedelta(minutes=8)
VALUES = ["open", "high", "low", "close", "volume"]
DAY = TimeWindow.of_day(START.date())


@pytest.fixture(scope="module")
def market():
    return generated_market([BTC, ETH])


@dataclass
class Recorded:
    settings: Settings
    lake: Lakehouse
    watermark: datetime
    before: pl.DataFrame  # the minutes before the repair

    def table(self, name: str) -> pl.DataFrame:
        return self.lake.scan(name).collect().sort("symbol", self.time(name))

    @staticmethod
    def time(name: str) -> str:
        return "start" if name in ("market.gaps", "market.reconciliation") else "open_time"


def build(lake: Lakehouse, watermark: datetime, day: date) -> None:
    window = TimeWindow.of_day(day)
    build_1s(lake, "BINANCE", window, watermark=watermark)
    build_1m(lake, "BINANCE", window, watermark=watermark)
    build_gaps(lake, "BINANCE", day, watermark=watermark)


@pytest.fixture(scope="module")
def recorded(market, tmp_path_factory):
    """Eight minutes of two symbols with an outage, built and repaired."""
    from lakehouse_pipeline_tests.integration.feed.conftest import running_worker, worker_settings

    folder: Path = tmp_path_factory.mktemp("repair")
    at, lasts = OUTAGE
    outage = [faults.Drop(at=at, lasts=lasts), faults.Refuse(at=at, lasts=lasts, status=503)]

    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, faults=outage) as server:
            settings = worker_settings(folder, server.url, [BTC, ETH], speed=SPEED)
            settings = settings.model_copy(update={"history": HistorySettings(pace=timedelta(0))})
            async with running_worker(settings):
                while server.now() < START + LENGTH:  # noqa: ASYNC110  # the server's clock has no event
                    await asyncio.sleep(0.05)
            return settings, await asyncio.to_thread(mend, settings)

    def mend(settings: Settings) -> Recorded:
        lake = Lakehouse.open(settings)
        watermark = current_watermark(lake, "BINANCE")
        assert watermark is not None
        build(lake, watermark, START.date())
        tick_1m(lake, "BINANCE", watermark=watermark)
        before = lake.scan("market.bars_1m").collect().sort("symbol", "open_time")
        repair(lake, settings, "BINANCE", watermark=watermark)
        tick_1s(lake, "BINANCE", watermark=watermark)
        tick_1m(lake, "BINANCE", watermark=watermark)
        reconciliation.build_reconciliation(
            lake, "BINANCE", START.date(), watermark=watermark, reach=settings.history.reach
        )
        return Recorded(settings, lake, watermark, before)

    _, result = asyncio.run(scenario())
    with result.lake:
        yield result


def official(market, symbol: str, minutes: pl.DataFrame) -> pl.DataFrame:
    frame = market.bars(symbol, MINUTE, DAY.start - repair_plan.LEAD, DAY.end)
    return frame.filter(pl.col("open_time").is_in(minutes["open_time"].implode()))


@pytest.mark.parametrize("symbol", [BTC, ETH])
def test_every_filled_minute_is_the_markets_own(recorded: Recorded, market, symbol: str):
    bars = recorded.table("market.bars_1m").filter(symbol=symbol)
    filled = bars.filter(pl.col("source") != "stream")

    truth = official(market, symbol, filled)
    assert filled.select("open_time", *VALUES).rows() == truth.select("open_time", *VALUES).rows()
    # A busy machine may add a short hole of its own; the outage itself is wholly official.
    assert filled.filter(source="official").height >= 2
    assert filled.filter(source="mixed").height >= 2
    assert filled["volume_basis"].unique().to_list() == ["official"]
    first, last = bars["open_time"][0], bars["open_time"][-1]
    assert bars.height == (last - first) / MINUTE + 1
    # And the day before the recording, for indicators to stand on.
    assert first == START.replace(second=0) - repair_plan.LEAD


def test_what_was_wholly_seen_is_as_it_was_streamed(recorded: Recorded):
    after = recorded.table("market.bars_1m").filter(source="stream")
    kept = recorded.before.join(after, on=["symbol", "open_time"], how="semi")

    deviations = ["price_deviation", "volume_deviation"]
    assert after.height >= 4
    assert_frame_equal(kept.drop(deviations), after.drop(deviations))
    # Only where history was fetched is there anything to deviate from.
    whole = after.filter(pl.col("covered_seconds") == 60)
    assert whole.drop_nulls("price_deviation")["symbol"].n_unique() == 2


def test_bars_and_gaps_hold_every_trade_the_counter_counted(recorded: Recorded):
    seconds, gaps = recorded.table("market.bars_1s"), recorded.table("market.gaps")
    quotes = recorded.lake.scan("raw.quotes").sort("received_at").collect()

    assert unconserved_volume(seconds, gaps).is_empty()
    for symbol in (BTC, ETH):
        mine = seconds.filter(symbol=symbol)
        counter = quotes.filter(pl.col("symbol") == symbol)["cumulative_volume"].drop_nulls()
        booked = [*mine["volume"], *gaps.filter(symbol=symbol)["missed_volume"]]
        total = sum((Decimal(repr(volume)) for volume in booked), Decimal(0))
        gained = Decimal(repr(mine["counter_end"].max())) - Decimal(repr(counter[0]))
        assert total == gained


def test_the_loss_budget_says_what_was_filled(recorded: Recorded):
    rows = recorded.table("market.reconciliation")
    gaps, days = rows.filter(scope="gap"), rows.filter(scope="day")

    assert set(gaps["symbol"]) == {BTC, ETH}
    assert set(gaps["status"]) == {Status.FILLED}
    assert gaps["filled_volume"].to_list() == pytest.approx(gaps["missed_volume"].to_list())
    assert days["status"].to_list() == ["agrees", "agrees"]
    assert days["seconds_lost"].to_list() == [0.0, 0.0]
    assert days["seconds_filled"].sum() == pytest.approx(gaps["seconds_filled"].sum())
    window = recorded.watermark - rows["start"].min()
    assert (days["seconds_observed"] < window.total_seconds()).all()


def test_the_statements_about_bars_still_hold(recorded: Recorded):
    for statement in (
        ohlc_is_consistent,
        bars_match_quotes,
        rows_are_in_their_place,
        minutes_equal_direct_ones,
        volume_is_conserved,
        reconciliation.no_open_gaps,
        reconciliation.reconciliation_is_within_tolerance,
    ):
        proof = statement(recorded.lake, "BINANCE", DAY)
        assert proof.examined > 0
        assert proof.offenders.is_empty(), proof.offenders


def test_there_is_nothing_left_to_ask(recorded: Recorded):
    lake, settings, watermark = recorded.lake, recorded.settings, recorded.watermark

    assert plan_repair(lake, settings, "BINANCE", watermark=watermark) == []
    assert repair(lake, settings, "BINANCE", watermark=watermark).asked == 0


def test_a_rebuild_of_the_day_gives_the_same_rows(recorded: Recorded):
    tables = ("market.bars_1s", "market.bars_1m", "market.gaps", "market.reconciliation")
    before = {name: recorded.table(name) for name in tables}

    build(recorded.lake, recorded.watermark, START.date())
    reconciliation.build_reconciliation(
        recorded.lake,
        "BINANCE",
        START.date(),
        watermark=recorded.watermark,
        reach=recorded.settings.history.reach,
    )

    for name, frame in before.items():
        assert_frame_equal(frame, recorded.table(name))


@dataclass(kw_only=True)
class Deaf(Fault):
    """Chart sessions that ask for *symbol* hear nothing more once it is resolved."""

    symbol: str
    sessions: set[str] = field(default_factory=set)

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # all links
        found = re.search(r"cs_[0-9a-f]{12}", text)
        if found and "symbol_resolved" in text and self.symbol in text:
            self.sessions.add(found[0])
        return [] if found and found[0] in self.sessions else [text]


@pytest.mark.parametrize("hanging", [BTC, ETH])
def test_a_question_that_hangs_keeps_no_other_from_its_answer(market, tmp_path: Path, hanging: str):
    from lakehouse_pipeline_tests.integration.feed.conftest import worker_settings

    patience = HistorySettings(pace=timedelta(0), answer_timeout=timedelta(seconds=2))

    async def scenario(lake_of):
        fault = Deaf(at=timedelta(0), lasts=timedelta(days=1), symbol=hanging)
        async with FeedServer(market, faults=[fault]) as server:
            settings = worker_settings(tmp_path, server.url, [BTC, ETH])
            settings = settings.model_copy(update={"history": patience})
            since = server.now() - timedelta(minutes=5)
            with lake_of(settings) as lake:
                asks = [Ask(BTC, since), Ask(ETH, since)]
                report = await ask_all(lake, settings, "BINANCE", asks)
                return report, lake.scan("raw.fetches").collect()

    report, fetches = asyncio.run(scenario(Lakehouse.open))

    assert (report.answered, report.refused, report.silent) == (1, 0, 1)
    assert fetches["symbol"].to_list() == [ETH if hanging == BTC else BTC]
