"""TradingView's studies beside quotes, from a real feed server that wants a token."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.history import repair
from lakehouse_pipeline.build.indicators import build_indicators, worst_deviations
from lakehouse_pipeline.build.status import describe_exchanges
from lakehouse_pipeline.defs.checks.indicators import TOLERANCE
from lakehouse_pipeline.defs.sensors import summary
from lakehouse_pipeline.feedserver import FeedServer, generated_market
from lakehouse_pipeline.feedserver import studies as served
from lakehouse_pipeline.feedserver.faults import Fault, Link
from lakehouse_pipeline.ingest import scripts, studies, tokens
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.indicators import (
    Study,
    compute,
    macd,
    rsi,
)
from lakehouse_pipeline.market.ingested import deviations, final_values
from lakehouse_pipeline.market.stretches import as_one_stretch
from lakehouse_pipeline.market.windows import HOUR, MINUTE, SECOND, TimeWindow
from lakehouse_pipeline.settings import HistorySettings, Settings
from lakehouse_pipeline.tradingview.frames import encode
from lakehouse_pipeline_tests.integration.feed.identity import (
    COOKIES,
    ExpiresOnWord,
    jwt,
    token_page,
)

TOKEN = "good-token"
STUDIES: list[Study] = [rsi(), macd()]
SYMBOLS = [f"BINANCE:COIN{n}USDT" for n in range(20)]
# Shortly before a minute's end, so that a bar closes while the worker looks.
START = datetime(2026, 3, 2, 12, 0, 40, tzinfo=UTC)
SPEED = 4.0
LINES = ["symbol", "name", "parameters", "plot"]


@pytest.fixture(scope="module")
def market():
    return generated_market(SYMBOLS, pace=0.2)


@pytest.fixture
def settings_for(make_settings, tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a worker that shows a token."""

    def build(server: FeedServer, symbols: list[str], **feed: object) -> Settings:
        settings = make_settings(tmp_path, server.url, symbols, speed=SPEED)
        changed = {"token": SecretStr(TOKEN), "http_url": server.http_url, **feed}
        return settings.model_copy(update={"feed": settings.feed.model_copy(update=changed)})

    return build


def landed(worker) -> pl.DataFrame:
    return worker.table("raw.indicators")


def lines_of(raw: pl.DataFrame) -> int:
    return raw.select(LINES).unique().height


def computed(market, symbols: list[str], until: datetime) -> pl.DataFrame:
    """Our own values over the market's official bars."""
    since = until.replace(second=0) - 1500 * MINUTE
    bars = pl.concat(
        market.bars(symbol, MINUTE, since, until).with_columns(
            exchange=pl.lit("BINANCE"), symbol=pl.lit(symbol), flags=pl.lit(0, pl.Int32)
        )
        for symbol in symbols
    )
    return compute(as_one_stretch(bars, pl.DataFrame()), STUDIES)


def assert_equal_to_computed(raw: pl.DataFrame, market, symbols: list[str]) -> pl.DataFrame:
    values = final_values(raw, STUDIES)
    until = values["open_time"].max() + MINUTE
    found = deviations(pl.concat([values, computed(market, symbols, until)]))
    assert found.select(LINES).unique().height == len(symbols) * 4
    assert found["deviation"].max() < 1e-9
    return found


def test_studies_of_twenty_symbols_stream_beside_quotes_and_survive_a_reconnect(
    market, settings_for, run, eventually
):
    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            async with run(settings_for(server, SYMBOLS)) as worker:
                await eventually(lambda: lines_of(landed(worker)) == 20 * 5, timeout=30)
                before, quotes = landed(worker), worker.quotes_committed
                server.drop_clients()
                dropped_at = server.now()
                await eventually(
                    lambda: (
                        lines_of(landed(worker).filter(pl.col("received_at") > dropped_at))
                        == 20 * 5
                    ),
                    timeout=30,
                )
                await eventually(lambda: worker.quotes_committed > quotes)
            return worker, before

    worker, before = asyncio.run(scenario())
    raw = landed(worker)

    assert set(raw["plot"]) == {"rsi", "rsi-based ma", "macd", "signal", "histogram"}
    assert set(raw["parameters"]) == {"length=14", "fast=12,slow=26,signal=9"}
    assert raw.schema == schemas.RAW_INDICATORS
    assert not raw.select("writer_id", "sequence").is_duplicated().any()
    assert_equal_to_computed(raw, market, SYMBOLS)
    # The second session did not land its whole charts again.
    assert raw["session_id"].n_unique() == 2
    assert raw.height - before.height < before.height / 4
    assert worker.table("raw.rejects").is_empty()


def test_what_is_stored_is_what_the_feeds_studies_say_of_twenty_symbols(
    market, settings_for, run, eventually
):
    def build(settings: Settings) -> tuple[pl.DataFrame, pl.DataFrame]:
        with Lakehouse.open(settings) as lake:
            seen = current_watermark(lake, "BINANCE")
            assert seen is not None
            repair(lake, settings, "BINANCE", watermark=seen)
            build_day(lake, "BINANCE", START.date(), studies=STUDIES)
            build_day(lake, "BINANCE", START.date() - timedelta(days=1), studies=STUDIES)
            build_indicators(lake, "BINANCE", START.date(), STUDIES, watermark=seen)
            stored = lake.scan("market.indicators_1m").collect()
            return stored, worst_deviations(lake, "BINANCE", TimeWindow.of_day(START.date()))

    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            settings = settings_for(server, SYMBOLS).model_copy(
                update={"history": HistorySettings(pace=timedelta(0))}
            )
            async with run(settings) as worker:
                await eventually(lambda: lines_of(landed(worker)) == 20 * 5, timeout=60)
                await eventually(lambda: server.now() > START + 90 * SECOND, timeout=60)
            return await asyncio.to_thread(build, settings)

    stored, found = asyncio.run(scenario())

    ours = stored.filter(source="computed").drop_nulls("value")
    assert ours.select(LINES).unique().height == 20 * 4
    assert ours["open_time"].max() >= START  # of streamed minutes too, warm by those before
    # Over a hundred minutes of each plot have settled on both sides.
    assert found.select(LINES).unique().height == 20 * 4
    assert found.group_by(LINES).len()["len"].min() > 100
    official = found.filter(pl.col("open_time") + MINUTE <= START)
    assert official["deviation"].max() < 1e-9
    assert found["deviation"].max() < TOLERANCE


def test_live_values_of_a_minute_end_with_its_final_one(market, settings_for, run, eventually):
    symbol = SYMBOLS[0]
    minute = START.replace(second=0)

    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            async with run(settings_for(server, [symbol])) as worker:
                await eventually(
                    lambda: (landed(worker)["event_time"] > minute).sum() > 10, timeout=40
                )
            return worker

    raw = landed(asyncio.run(scenario()))
    found = assert_equal_to_computed(raw, market, [symbol])

    live = raw.filter(plot="rsi", event_time=minute + MINUTE)
    assert live["value"].n_unique() > 1
    assert minute in found["open_time"].to_list()
    assert minute + MINUTE not in found["open_time"].to_list()  # it had not ended yet


class BreaksOneStudy(Fault):
    """The first study asked for fails after its first values."""

    broken: str | None = None

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # always
        if self.broken is None and '"study_completed"' in text:
            session, self.broken = json.loads(text.split("~", 4)[4])["p"][:2]
            why = {"error": "runtime error: {reason}", "ctx": {"reason": "out of luck"}}
            error = {"m": "study_error", "p": [session, self.broken, "s1_st1", why, "node"]}
            return [text, encode(json.dumps(error))]
        return [text]


def test_a_study_error_is_one_reject_and_is_asked_for_again(
    market, settings_for, run, eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(studies, "RETRY", 8_000_000)
    fault = BreaksOneStudy(at=timedelta(0))

    async def scenario():
        async with FeedServer(
            market, start=START, speed=SPEED, tokens=[TOKEN], faults=[fault]
        ) as server:
            async with run(settings_for(server, SYMBOLS[:2])) as worker:
                await eventually(lambda: not worker.table("raw.rejects").is_empty(), timeout=30)
                (failed,) = worker.table("raw.rejects").iter_rows(named=True)
                since = failed["received_at"] + timedelta(seconds=8)
                await eventually(
                    lambda: lines_of(landed(worker).filter(pl.col("received_at") > since)) == 10,
                    timeout=30,
                )
            return worker, failed

    worker, failed = asyncio.run(scenario())

    assert failed["reason"] == "study_refused"
    assert failed["symbol"] in SYMBOLS[:2]
    assert "runtime error: out of luck" in failed["payload"]
    assert worker.status.sessions == 1
    assert worker.table("raw.rejects").height == 1
    assert_equal_to_computed(landed(worker), market, SYMBOLS[:2])


def test_a_renewed_token_brings_the_studies_an_expired_one_was_refused(
    market, settings_for, run, eventually
):
    renewed = threading.Event()

    def give() -> tuple[int, str]:
        renewed.wait(10)
        return 200, TOKEN

    async def scenario(page: str):
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            settings = settings_for(
                server, SYMBOLS[:1], token=SecretStr("widget_user_token"), origin=page, **COOKIES
            )
            async with run(settings) as worker:
                await eventually(lambda: worker.table("raw.rejects").height == 2, timeout=20)
                refused = worker.table("raw.rejects")
                renewed.set()
                await eventually(lambda: lines_of(landed(worker)) == 5, timeout=20)
            return worker, refused

    with token_page(give) as page:
        worker, refused = asyncio.run(scenario(page))

    assert refused["payload"].str.contains("maximum number of studies").all()
    assert worker.status.sessions == 1
    assert worker.table("raw.quotes")["session_id"].n_unique() == 1


def test_a_study_that_cannot_be_is_left_out_and_another_way_to_write_one_is_not(
    market, settings_for, run, eventually
):
    indicators = {"rsi": {"length": 14.0}, "macd": {"fast": 26, "slow": 12}}

    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            settings = settings_for(server, SYMBOLS[:1]).model_copy(
                update={"indicators": indicators}
            )
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 5, timeout=30)
                await eventually(lambda: lines_of(landed(worker)) == 2, timeout=30)
            return worker

    worker = asyncio.run(scenario())

    assert set(landed(worker)["name"]) == {"rsi"}
    assert set(landed(worker)["parameters"]) == {"length=14"}
    (reject,) = worker.table("raw.rejects").iter_rows(named=True)
    assert reject["reason"] == "study_dropped"
    assert "fast must be less than slow" in reject["payload"]
    assert "study macd: " in summary(worker.status)


def test_a_study_the_feed_does_not_know_is_one_reject_and_shown_until_it_does(
    market, settings_for, run, eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scripts, "RETRY", timedelta(milliseconds=300))
    macd = served.STUDIES["STD;MACD"]
    monkeypatch.delitem(served.STUDIES, "STD;MACD")
    said = []

    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            settings = settings_for(server, SYMBOLS[:1])
            async with run(settings) as worker:
                await eventually(lambda: lines_of(landed(worker)) == 2, timeout=30)
                await eventually(lambda: worker.status.study_error, timeout=10)
                with Lakehouse.open(settings) as lake:
                    now = datetime.now(UTC)
                    exchanges = describe_exchanges(lake, settings.state_dir, ["BINANCE"], now=now)
                said.extend([summary(worker.status), exchanges["worker"].item()])
                served.STUDIES["STD;MACD"] = macd
                await eventually(lambda: lines_of(landed(worker)) == 5, timeout=30)
                await eventually(lambda: not worker.status.study_error, timeout=10)
            return worker

    worker = asyncio.run(scenario())

    (reject,) = worker.table("raw.rejects").iter_rows(named=True)
    assert reject["reason"] == "study_not_described"
    assert "STD;MACD is not computed here" in reject["payload"]
    assert all("study macd: " in line and "is not computed here" in line for line in said)
    assert said[1].startswith("recording; ")


class AnswersNoChart(Fault):
    """Nothing is said about charts until ``ended``."""

    ended = False

    def texts(self, since: timedelta, link: Link, text: str) -> list[str]:  # noqa: ARG002  # always
        return [text] if self.ended or '"cs_' not in text else []


def test_a_chart_without_an_answer_is_counted_and_asked_for_less_often(
    market, settings_for, run, eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(studies, "RETRY", 4_000_000)
    fault = AnswersNoChart()

    async def scenario():
        async with FeedServer(
            market, start=START, speed=SPEED, tokens=[TOKEN], faults=[fault]
        ) as server:
            async with run(settings_for(server, SYMBOLS[:1])) as worker:
                await eventually(lambda: worker.table("raw.rejects").height == 3, timeout=40)
                lacking = worker.status.studies_lacking, summary(worker.status)
                measured = REGISTRY.get_sample_value(
                    "lakehouse_studies_lacking", {"exchange": "BINANCE"}
                )
                fault.ended = True
                await eventually(lambda: lines_of(landed(worker)) == 5, timeout=40)
                await eventually(lambda: worker.status.studies_lacking == 0, timeout=10)
            return worker, lacking, measured

    worker, (lacking, said), measured = asyncio.run(scenario())

    rejects = worker.table("raw.rejects")
    assert set(rejects["reason"]) == {"study_unanswered"}
    first, second = rejects["received_at"].sort().diff().drop_nulls().dt.total_seconds()[:2]
    assert second > 1.5 * first > 1.5 * 4
    assert lacking == measured == 1
    assert "does not give: 1" in said
    assert worker.status.sessions == 1


def test_without_a_token_no_study_is_asked_for(market, settings_for, run, eventually):
    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            async with run(settings_for(server, SYMBOLS[:1], token=None)) as worker:
                await eventually(lambda: worker.quotes_committed > 5, timeout=30)
            return worker

    worker = asyncio.run(scenario())

    assert landed(worker).is_empty()
    assert worker.table("raw.rejects").is_empty()


@pytest.mark.parametrize("restarted", [True, False], ids=["another worker", "the same worker"])
def test_a_break_of_hours_leaves_neither_a_hole_nor_unsettled_values(
    market, settings_for, run, eventually, restarted
):
    """Whoever goes on: a worker that starts then, or the one whose feed was away."""
    back = START + 5 * HOUR
    symbols = SYMBOLS[:2]

    def came_back(worker) -> bool:
        return lines_of(landed(worker).filter(pl.col("event_time") >= back - MINUTE)) == 2 * 5

    async def scenario():
        async with FeedServer(market, start=START, speed=SPEED, tokens=[TOKEN]) as server:
            port = urlsplit(server.url).port
            settings = settings_for(server, symbols)
            worker_there = run(settings)
            worker = await worker_there.__aenter__()
            await eventually(lambda: lines_of(landed(worker)) == 2 * 5, timeout=30)
            before = landed(worker).height
            if restarted:
                await worker_there.__aexit__(None, None, None)
        async with FeedServer(market, start=back, speed=SPEED, tokens=[TOKEN], port=port):
            if restarted:
                worker_there = run(settings)
                worker = await worker_there.__aenter__()
            await eventually(lambda: came_back(worker), timeout=40)
            await worker_there.__aexit__(None, None, None)
        return worker, before

    worker, before = asyncio.run(scenario())
    raw = landed(worker)
    missed = pl.col("open_time").is_between(START.replace(second=0), back - MINUTE, closed="left")

    final = final_values(raw, STUDIES).filter(missed)
    ours = computed(market, symbols, back).filter(missed, pl.col("value").is_not_null())
    assert ours.height > 290 * 2 * 4  # nearly all minutes of both symbols have a trade
    both = ours.join(final, on=[*LINES, "open_time"], how="left", suffix="_theirs")
    assert both["flags_theirs"].to_list() == [0] * ours.height
    assert (both["value"] - both["value_theirs"]).abs().max() < 1e-6
    assert_equal_to_computed(raw, market, symbols)
    assert worker.table("raw.rejects").is_empty()
    # The break landed, and not what was there before it.
    assert raw.height - before < 1.3 * (back - START) / MINUTE * 2 * 5


@pytest.mark.timeout(180)
def test_studies_of_twenty_symbols_survive_error_renewal_and_reconnect_on_one_worker(
    market, settings_for, run, eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(studies, "RETRY", 8_000_000)
    monkeypatch.setattr(tokens, "PAUSE", timedelta(milliseconds=10))
    monkeypatch.setattr(tokens, "AHEAD", timedelta(hours=1))
    renew = threading.Event()
    now = datetime.now(UTC)
    old, new = jwt(now + tokens.AHEAD / 2), jwt(now + timedelta(hours=3))  # the old one is due
    given = iter([old])

    def give() -> tuple[int, str]:
        if (first := next(given, None)) is not None:
            return 200, first
        return (200, new) if renew.wait(5) else (503, "")

    fault = BreaksOneStudy(at=timedelta(0))
    expiry = ExpiresOnWord(at=timedelta(0))

    def all_since(worker, instant: datetime) -> bool:
        return lines_of(landed(worker).filter(pl.col("received_at") > instant)) == 20 * 5

    async def scenario(page: str):
        async with FeedServer(
            market, start=START, speed=SPEED, tokens=[old, new], faults=[fault, expiry]
        ) as server:
            settings = settings_for(server, SYMBOLS, token=None, origin=page, **COOKIES)
            async with run(settings) as worker:
                await eventually(lambda: not worker.table("raw.rejects").is_empty(), timeout=60)
                (failed,) = worker.table("raw.rejects").iter_rows(named=True)
                await eventually(lambda: all_since(worker, failed["received_at"]), timeout=60)
                assert new not in expiry.shown
                renew.set()
                await eventually(lambda: new in expiry.shown, timeout=30)
                expiry.expired.add(old)
                renewed_at = server.now()
                await eventually(lambda: all_since(worker, renewed_at), timeout=60)
                sessions = worker.status.sessions
                quotes = worker.quotes_committed
                server.drop_clients()
                dropped_at = server.now()
                await eventually(lambda: all_since(worker, dropped_at), timeout=60)
                await eventually(lambda: worker.quotes_committed > quotes)
            return worker, sessions

    with token_page(give) as page:
        worker, sessions = asyncio.run(scenario(page))

    assert sessions == 1  # neither the error nor the renewal ended the connection
    assert worker.status.sessions == 2
    assert list(worker.table("raw.rejects")["reason"]) == ["study_refused"]
    assert_equal_to_computed(landed(worker), market, SYMBOLS)
