"""Tokens and cookies appear in nothing that a worker writes."""

from __future__ import annotations

import asyncio
import http.server
import logging
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from lakehouse_pipeline.errors import AuthError
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.web import fetch_token
from lakehouse_pipeline_tests.integration.feed.identity import serving

BTC = "BINANCE:BTCUSDT"
TOKEN, COOKIE, SIGNATURE = "tok3n-Xq7", "c00kie-Zr5", "sign4ture-Wp9"


def traces(folder: Path) -> dict[str, list[str]]:
    """Return by secret the files under *folder* that hold it, of whatever kind."""
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        secret: [str(path) for path, content in contents.items() if secret.encode() in content]
        for secret in (TOKEN, COOKIE, SIGNATURE)
    }


def test_secrets_are_in_no_file_log_or_error(
    tmp_path: Path, make_settings, run, eventually, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)

    async def scenario():
        # Refused at first, so that errors and rejects are made; then let in without it.
        expired = faults.ExpiredToken(lasts=timedelta(seconds=120), tokens=[TOKEN])
        market = generated_market(pace=20)
        async with FeedServer(market, speed=20, tokens=[TOKEN], faults=[expired]) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=20.0)
            secrets = {
                "token": SecretStr(TOKEN),
                "sessionid": SecretStr(COOKIE),
                "sessionid_sign": SecretStr(SIGNATURE),
                "refused_pause": timedelta(seconds=5),
                "origin": server.http_url,
            }
            settings = settings.model_copy(
                update={"feed": settings.feed.model_copy(update=secrets)}
            )
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 10, timeout=40)
            return worker, settings

    with structlog.testing.capture_logs() as logs:
        worker, settings = asyncio.run(scenario())

    (said,) = worker.table("raw.rejects")["payload"]
    assert "token" in said
    assert traces(tmp_path) == {TOKEN: [], COOKIE: [], SIGNATURE: []}
    everything = [repr(settings), str(settings), repr(logs), caplog.text, repr(AuthError(said))]
    everything += [worker.table(f"raw.{name}").write_json() for name in ("coverage", "rejects")]
    for secret in (TOKEN, COOKIE, SIGNATURE):
        assert not any(secret in text for text in everything)


def test_a_cookie_that_no_header_can_hold_stops_no_recording_and_is_told_to_nobody(
    tmp_path: Path, make_settings, run, eventually, caplog: pytest.LogCaptureFixture
):
    """Settings refuse such a cookie; this is for one that came past them."""
    caplog.set_level(logging.INFO)

    async def scenario():
        async with FeedServer(generated_market(pace=20), speed=20) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=20.0)
            cookie = {"sessionid": SecretStr(f"{COOKIE}\n"), "origin": server.http_url}
            settings = settings.model_copy(update={"feed": settings.feed.model_copy(update=cookie)})
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 10, timeout=40)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())

    (warning,) = [entry for entry in logs if entry["event"] == "token_not_renewed"]
    assert "no header can hold" in warning["problem"]
    assert traces(tmp_path)[COOKIE] == []
    assert COOKIE not in repr(logs) + caplog.text


@pytest.mark.parametrize("cookie", [f"{COOKIE}\n", f"{COOKIE}\u20ac"])
def test_the_error_of_a_bad_cookie_does_not_show_it(cookie: str):
    feed = FeedSettings(origin="http://127.0.0.1:9").model_copy(
        update={"sessionid": SecretStr(cookie)}
    )

    with pytest.raises(AuthError) as failure:
        asyncio.run(fetch_token(feed))

    assert COOKIE not in "".join(traceback.format_exception(failure.value))


def test_cookies_do_not_follow_a_redirect_to_another_host():
    told: list[str | None] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.headers["Cookie"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'"token"')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Elsewhere) as elsewhere:

        class Redirects(Elsewhere):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", elsewhere.replace("127.0.0.1", "localhost"))
                self.end_headers()

        with serving(Redirects) as page, pytest.raises(AuthError, match="Log in anew"):
            asyncio.run(fetch_token(FeedSettings(origin=page, sessionid=SecretStr(COOKIE))))

    assert told == []
