"""Faults of connections and clocks: what lands, and what coverage says of each outage.

Those of single messages are in ``test_message_faults``, those of the lake in ``test_lake_away``.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr

from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.market.coverage import covered
from lakehouse_pipeline.market.gaps import Cause, find_gaps
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline_tests.integration.feed.identity import ExpiresOnWord

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
SPEED = 8.0  # a busy machine may stand still for a second without it looking like an outage
HEARTBEAT, LATENESS = timedelta(seconds=10), timedelta(seconds=5)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def ends(coverage: pl.DataFrame) -> list[str]:
    return coverage.filter(kind="ended").sort("start")["reason"].to_list()


def assert_one_unbroken_session(played: SimpleNamespace) -> None:
    assert ends(played.coverage) == ["stopped"]
    whole = TimeWindow(played.coverage["start"].min(), played.coverage["end"].max())
    for symbol in (BTC, ETH):
        assert len(covered(played.coverage, symbol, whole)) == 1


def test_a_day_that_rolls_restores_the_daily_fields_and_counts_anew(play):
    played = play([faults.DayRoll(at=seconds(25))], lambda worker: worker.quotes_committed > 150)

    assert played.rejects.is_empty()
    assert_one_unbroken_session(played)
    for symbol in (BTC, ETH):
        volume = played.quotes.filter(symbol=symbol).sort("sequence")["cumulative_volume"]
        falls = (volume.diff() < 0).sum()
        assert falls == 1
        assert volume[-1] < volume[0]


# Outages: each once, with its cause, around the true one.


def only_gap(played: SimpleNamespace, symbol: str) -> dict[str, Any]:
    day = TimeWindow(played.began - seconds(3_600), played.began + seconds(7_200))
    watermark = played.coverage.filter(kind="alive")["end"].max() - LATENESS
    gaps = find_gaps(played.quotes, played.coverage, day, watermark)
    assert gaps.filter(symbol=symbol).height == 1, gaps
    return gaps.filter(symbol=symbol).row(0, named=True)


def after_reconnect(worker: Any) -> bool:
    return worker.status.sessions >= 2 and worker.quotes_committed > 150


@pytest.mark.parametrize(
    ("fault", "ending"),
    [
        (faults.Drop(at=seconds(25)), "closed"),
        (faults.Silence(at=seconds(25), lasts=seconds(3_000)), "silent"),
        (faults.SlowDrip(at=seconds(25), lasts=seconds(35), characters=0.5), "silent"),
        (faults.ExpiredToken(at=seconds(25), lasts=seconds(1), tokens=["old"]), "refused"),
    ],
    ids=["drop", "half_open", "slow_drip", "expired_token"],
)
def test_an_outage_appears_once_with_its_cause_and_its_bounds(play, fault, ending):
    token = {"refused_pause": seconds(0.5)}
    if ending == "refused":
        token["token"] = SecretStr("old")
    played = play([fault], after_reconnect, silence=seconds(22), **token)

    assert ends(played.coverage)[0] == ending
    before = played.coverage.filter(kind="ended").sort("start")["end"][0]
    again = played.coverage.filter(kind="subscribed").sort("start")
    for symbol in (BTC, ETH):
        gap = only_gap(played, symbol)
        true_end = again.filter(pl.col("symbol") == symbol, pl.col("start") > before)["start"][0]
        assert gap["cause"] == Cause.FEED_GAP
        assert gap["start"] <= before
        assert before - gap["start"] <= HEARTBEAT + LATENESS
        assert true_end - HEARTBEAT - LATENESS <= gap["end"] <= true_end + HEARTBEAT + LATENESS


def test_heartbeats_without_data_are_stalled_symbols_and_no_reconnect(play):
    quiet = faults.NoData(at=seconds(440))
    commits = 0

    def both_have_stalled(worker: Any) -> bool:
        nonlocal commits
        if len(worker.reports) < commits + 5:  # reading the table takes long
            return False
        commits = len(worker.reports)
        return worker.table("raw.coverage").filter(kind="stalled")["symbol"].n_unique() > 1

    played = play(
        [quiet],
        both_have_stalled,
        speed=40.0,
    )

    assert ends(played.coverage) == ["stopped"]
    stalled = played.coverage.filter(kind="stalled")
    assert set(stalled["symbol"]) == {BTC, ETH}
    assert (stalled["end"] - stalled["start"]).min() > seconds(60)


def test_a_redirect_is_followed(tmp_path: Path, market, make_settings, run, eventually):
    async def scenario():
        async with FeedServer(market, speed=SPEED) as real:
            elsewhere = faults.Redirect(host=real.url.removeprefix("ws://"))
            async with FeedServer(market, speed=SPEED, faults=[elsewhere]) as front:
                settings = make_settings(tmp_path, front.url, [BTC], speed=SPEED)
                async with run(settings) as worker:
                    await eventually(lambda: worker.quotes_committed > 10, timeout=30)
                return worker, real, front

    worker, real, front = asyncio.run(scenario())

    assert ends(worker.table("raw.coverage")) == ["stopped"]
    assert {packet.name for packet in real.sent} == {BTC}
    assert front.sent == []


def test_a_token_is_not_shown_where_a_redirect_leads(
    tmp_path: Path, market, make_settings, run, eventually
):
    """The worker stays with the feed it was given, and goes on there once it is greeted."""
    seen = ExpiresOnWord(at=seconds(0))
    before = "127.0.0.1"

    async def scenario():
        async with FeedServer(market, speed=SPEED, faults=[seen]) as other:
            host = other.url.removeprefix("ws://").partition("/")[0].replace(before, "localhost")
            leads_away = faults.Redirect(host=host, lasts=seconds(40))
            async with FeedServer(market, speed=SPEED, faults=[leads_away]) as server:
                settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
                feed = settings.feed.model_copy(update={"token": SecretStr("secret")})
                settings = settings.model_copy(update={"feed": feed})
                async with run(settings) as worker:
                    await eventually(lambda: host in worker.status.feed_error, timeout=20)
                    await eventually(lambda: worker.quotes_committed > 10, timeout=40)
                return worker

    worker = asyncio.run(scenario())

    assert seen.shown == set()
    assert worker.status.feed_error == ""
    assert ends(worker.table("raw.coverage")) == ["stopped"]


def test_failed_connects_leave_no_coverage_row(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        refused = faults.Refuse(status=503, lasts=seconds(40))
        async with FeedServer(market, speed=SPEED, faults=[refused]) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: "503" in worker.status.feed_error, timeout=20)
                await eventually(lambda: worker.quotes_committed > 10, timeout=40)
            return worker

    coverage = asyncio.run(scenario()).table("raw.coverage")

    assert coverage["session_id"].n_unique() == 1
    assert coverage.filter(kind="opened").height == coverage.filter(kind="ended").height == 1


def test_a_delayed_feed_says_so_in_every_row(play):
    played = play([faults.Delayed(at=seconds(0), by=timedelta(minutes=15))])

    assert set(played.quotes["update_mode"]) == {"delayed_streaming_900"}
    happened = played.quotes.filter(pl.col("kind") == "price")
    assert (happened["received_at"] - happened["event_time"]).min() > timedelta(minutes=14)
    assert_one_unbroken_session(played)


@pytest.mark.parametrize("step", [seconds(90), seconds(-90)], ids=["ahead", "back"])
def test_a_step_of_the_machines_clock_begins_a_new_session(
    monkeypatch, tmp_path: Path, market, make_settings, run, eventually, step
):
    """Within a session time runs steadily, and coverage tells where it was set."""

    class Machine(datetime):
        by = timedelta(0)

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + cls.by

    monkeypatch.setattr("lakehouse_pipeline.ingest.clock.datetime", Machine)

    async def scenario():
        async with FeedServer(market, heartbeat=seconds(1)) as server:
            async with run(make_settings(tmp_path, server.url, [BTC, ETH])) as worker:
                await eventually(lambda: worker.quotes_committed > 5, timeout=30)
                Machine.by = step
                await eventually(lambda: worker.status.sessions == 2, timeout=30)
                before = worker.quotes_committed
                await eventually(lambda: worker.quotes_committed > before + 5, timeout=30)
            return worker

    worker = asyncio.run(scenario())
    quotes, coverage = worker.table("raw.quotes"), worker.table("raw.coverage")

    ended = coverage.filter(kind="ended").sort("sequence")
    assert ended["reason"].to_list() == ["clock_stepped", "stopped"]
    for session in ended["session_id"]:
        received = quotes.filter(session_id=session).sort("sequence")["received_at"]
        assert received.is_sorted()
        assert received[-1] - received[0] < seconds(60)
    opened = coverage.filter(kind="opened").sort("sequence")["start"]
    distance = opened[1] - ended["end"][0]
    assert abs(distance - step) < seconds(30)
