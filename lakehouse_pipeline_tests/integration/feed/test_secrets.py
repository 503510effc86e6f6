"""Tokens and cookies appear in nothing that a worker writes."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from lakehouse_pipeline.errors import AuthError
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer

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
