"""Tokens come and go; quotes are recorded all the same, anonymously at worst."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from lakehouse_pipeline.feedserver import FeedServer, generated_market
from lakehouse_pipeline.ingest import tokens
from lakehouse_pipeline.ingest.tokens import Tokens
from lakehouse_pipeline.settings import FeedSettings, Settings
from lakehouse_pipeline.tradingview.protocol import ANONYMOUS
from lakehouse_pipeline_tests.integration.feed.identity import (
    COOKIES,
    ExpiresOnWord,
    jwt,
    token_page,
)

GOOD = "good-token"
BTC = "BINANCE:BTCUSDT"
SPEED = 20.0


@pytest.fixture
def settings_for(make_settings, tmp_path: Path) -> Callable[..., Settings]:
    def build(server: FeedServer, **feed: object) -> Settings:
        settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
        changed = {"http_url": server.http_url, **feed}
        return settings.model_copy(update={"feed": settings.feed.model_copy(update=changed)})

    return build


def feed_server(*faults) -> FeedServer:
    return FeedServer(generated_market([BTC], pace=20), speed=SPEED, tokens=[GOOD], faults=faults)


def test_a_refused_token_is_shown_no_more_and_quotes_are_recorded_anonymously(
    settings_for, run, eventually
):
    async def scenario():
        async with feed_server() as server:
            # The usual pause after a refusal would be five minutes.
            async with run(settings_for(server, token=SecretStr("ended"))) as worker:
                await eventually(lambda: worker.quotes_committed > 5, timeout=30)
            return worker

    with structlog.testing.capture_logs() as logs:
        worker = asyncio.run(scenario())

    (reject,) = worker.table("raw.rejects").iter_rows(named=True)
    assert "bad auth token" in reject["payload"]
    (warning,) = [entry for entry in logs if entry["event"] == "token_refused"]
    assert warning["log_level"] == "warning"
    assert worker.table("raw.quotes")["session_id"].n_unique() == 1


def test_quotes_go_on_when_the_token_is_refused_and_the_cookies_are_dead(
    settings_for, run, eventually
):
    async def scenario(page: str):
        async with feed_server() as server:
            settings = settings_for(server, token=SecretStr("ended"), origin=page, **COOKIES)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 5, timeout=30)
            return worker

    with structlog.testing.capture_logs() as logs, token_page(lambda: (403, "")) as page:
        worker = asyncio.run(scenario(page))

    assert logged(logs, "token_not_renewed")
    assert "bad auth token" in worker.table("raw.rejects")["payload"].item()


def test_a_token_whose_time_is_over_is_not_shown(settings_for, run, eventually):
    seen = ExpiresOnWord(at=timedelta(0))
    over = jwt(datetime.now(UTC) - timedelta(seconds=1))

    async def scenario():
        market = generated_market([BTC], pace=20)
        async with FeedServer(market, speed=SPEED, faults=[seen]) as server:
            async with run(settings_for(server, token=SecretStr(over))) as worker:
                await eventually(lambda: worker.quotes_committed > 5, timeout=30)
            return worker

    with structlog.testing.capture_logs() as logs:
        worker = asyncio.run(scenario())

    assert seen.shown == {ANONYMOUS}
    assert worker.table("raw.rejects").is_empty()
    assert [entry["log_level"] for entry in logs if entry["event"] == "token_ended"] == ["warning"]


def test_a_token_that_ends_while_it_is_kept_is_shown_no_more(eventually):
    async def scenario() -> list[str]:
        given = jwt(datetime.now(UTC) + timedelta(seconds=0.5))
        kept = Tokens(FeedSettings(token=SecretStr(given)), now=lambda: datetime.now(UTC))
        keeping = asyncio.create_task(kept.run())
        seen = [kept.show()]
        await eventually(lambda: kept.show() != given)
        await eventually(lambda: logged(logs, "token_ended"))
        keeping.cancel()
        assert seen == [given]
        return kept.show()

    with structlog.testing.capture_logs() as logs:
        assert asyncio.run(scenario()) == ANONYMOUS


def test_a_page_that_gives_the_refused_token_again_is_not_followed(
    eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tokens, "PAUSE", timedelta(milliseconds=10))
    given = iter([GOOD, GOOD, GOOD])

    async def scenario(page: str) -> str:
        kept = Tokens(FeedSettings(origin=page, **COOKIES), now=lambda: datetime.now(UTC))
        keeping = asyncio.create_task(kept.run())
        await kept.wait_for_one()
        assert kept.show() == GOOD
        kept.refused()
        await eventually(lambda: logged(logs, "token_not_renewed"))
        keeping.cancel()
        return kept.show()

    with structlog.testing.capture_logs() as logs, token_page(lambda: (200, next(given))) as page:
        assert asyncio.run(scenario(page)) == ANONYMOUS


def logged(logs, event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


def test_tokens_that_are_refused_again_and_again_are_asked_for_less_often(
    eventually, monkeypatch: pytest.MonkeyPatch
):
    """Each refusal costs the living connection: it must not happen every minute for ever."""
    monkeypatch.setattr(tokens, "PAUSE", timedelta(milliseconds=10))
    monkeypatch.setattr(tokens, "LONGEST_PAUSE", timedelta(hours=1))
    times: list[datetime] = []

    def give() -> tuple[int, str]:
        times.append(datetime.now(UTC))
        return 200, f"token-{len(times)}"

    async def scenario(page: str) -> None:
        kept = Tokens(FeedSettings(origin=page, **COOKIES), now=lambda: datetime.now(UTC))
        keeping = asyncio.create_task(kept.run())
        for number in range(1, 7):
            await eventually(lambda number=number: kept.show() == f"token-{number}")
            kept.refused()
            assert kept.show() == ANONYMOUS
        keeping.cancel()

    with token_page(give) as page:
        asyncio.run(scenario(page))

    pauses = [after - before for before, after in itertools.pairwise(times)]
    for doublings, pause in enumerate(pauses):
        assert pause >= timedelta(milliseconds=10) * 2**doublings


def test_a_token_is_renewed_before_it_ends_and_when_it_is_refused(
    eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tokens, "PAUSE", timedelta(milliseconds=10))
    monkeypatch.setattr(tokens, "AHEAD", timedelta(seconds=60))
    now = datetime.now(UTC)
    short, long = jwt(now + timedelta(seconds=60.3)), jwt(now + timedelta(hours=1))
    given = iter([(200, short), (503, ""), (200, long), (403, ""), (200, GOOD)])

    async def scenario(page: str) -> list[str]:
        kept = Tokens(FeedSettings(origin=page, **COOKIES), now=lambda: datetime.now(UTC))
        seen = [kept.show()]
        keeping = asyncio.create_task(kept.run())
        await kept.wait_for_one()
        seen.append(kept.show())
        await eventually(lambda: kept.show() == long)
        seen.append(kept.show())
        kept.refused()
        await eventually(lambda: kept.show() == GOOD)
        keeping.cancel()
        return seen

    with token_page(lambda: next(given)) as page:
        seen = asyncio.run(scenario(page))

    assert seen == ["unauthorized_user_token", short, long]
