"""Who is told that a run failed, and what: never a secret, and never at the sensor's expense."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from lakehouse_pipeline.defs import alerts
from lakehouse_pipeline.defs.alerts import Webhook, build_failure_alert, redact, secrets
from lakehouse_pipeline.defs.jobs import RUNBOOK
from lakehouse_pipeline.settings import AlertSettings, FeedSettings
from lakehouse_pipeline_tests.conftest import PATIENCE

TOKEN = "eyJhbGciOi.secret.token"
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def server():
    """``server(status, hang)``: a webhook's address and what it was sent."""
    servers = []

    def start(status: int = 200, *, drip: bool = False) -> tuple[str, list[dict[str, str]]]:
        received: list[dict[str, str]] = []
        stopped = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(json.loads(body))
                while drip and not stopped.wait(0.02):
                    self.wfile.write(b"H")
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, daemon=True).start()
        servers.append((made, stopped))
        return f"http://127.0.0.1:{made.server_port}/hook", received

    yield start
    for made, stopped in servers:
        stopped.set()
        made.shutdown()
        made.server_close()


def failed(cause: str, *, partition: str = "2026-01-05|OKX") -> dict[str, str]:
    return {"job": "build_today", "partition": partition, "cause": cause}


@pytest.fixture
def told(settings, instance, tmp_path):
    """``told(webhook=…)``: what the real sensor tells of a real run that failed."""

    def fail(webhook: str | None = None) -> list[dict[str, str]]:
        chosen = settings.model_copy(
            update={
                "feed": FeedSettings(token=SecretStr(TOKEN)),
                "alerts": AlertSettings(
                    file=tmp_path / "logs" / "alerts.jsonl",
                    webhook=SecretStr(webhook) if webhook else None,
                ),
            }
        )

        @dg.op
        def break_down() -> None:
            problem = f"refused for token {TOKEN}\nby http://user:word@host/path"
            raise RuntimeError("outer") from ConnectionError(problem)

        @dg.job(name="repair", tags={"dagster/partition": "2026-01-05|OKX"})
        def failing() -> None:
            break_down()

        result = failing.execute_in_process(instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            sensor_name="failure_alert",
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=result.dagster_run,
        )
        build_failure_alert(chosen)(context.for_run_failure())
        lines = (tmp_path / "logs" / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return fail


def test_run_partition_cause_and_runbook_are_told_and_no_secret(told, server):
    url, received = server()

    (line,) = told(url)

    assert line["partition"] == "2026-01-05|OKX"
    assert line["runbook"] == "docs/runbook.md#repair-failed"
    assert line["text"] == (
        f"Run {line['run'][:8]} of repair (2026-01-05|OKX) failed: ConnectionError: refused for "
        "token *** by http://user:***@host/path See docs/runbook.md#repair-failed"
    )
    assert [sent["text"] for sent in received] == [line["text"]]
    assert TOKEN not in json.dumps([line, received])


def test_a_webhook_that_fails_breaks_nothing_and_is_left_alone_for_a_while(told, server):
    url, received = server(status=500)

    assert len(told(url)) == 1
    webhook = Webhook(url)
    assert [webhook.send(failed("a")), webhook.send(failed("b"))] == [False, False]
    assert [sent["cause"] for sent in received[1:]] == ["a"]


def test_the_same_trouble_is_posted_once_an_hour(server):
    url, received = server()
    webhook = Webhook(url)

    webhook.send(failed("s3-17.parquet is missing, 4 tries", partition="2026-01-05|OKX"))
    webhook.send(failed("s3-18.parquet is missing, 9 tries", partition="2026-01-06|OKX"))
    webhook.send(failed("s3-18.parquet is missing, 9 tries", partition="2026-01-06|BYBIT"))
    webhook.send(failed("the disk is full", partition="2026-01-06|OKX"))

    assert [(sent["partition"][-3:], sent["cause"][:8]) for sent in received] == [
        ("OKX", "s3-17.pa"),
        ("BIT", "s3-18.pa"),
        ("OKX", "the disk"),
    ]


def test_a_webhook_that_drips_costs_no_more_than_the_patience(server):
    url, _ = server(drip=True)
    began = time.monotonic()

    assert not Webhook(url, patience=0.3).send(failed("a"))

    assert time.monotonic() - began < 5 * PATIENCE


def test_streams_are_watched_too(defs):
    sensor = defs.resolve_sensor_def(alerts.build_failure_alert.__name__.removeprefix("build_"))

    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert "stream_quotes" in RUNBOOK


def test_every_link_leads_to_a_section_of_the_runbook():
    text = (DOCS / "runbook.md").read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }

    assert {link.partition("#")[2] for link in RUNBOOK.values()} <= sections


def test_every_secret_of_the_settings_is_known(settings):
    chosen = settings.model_copy(
        update={"feed": FeedSettings(token=SecretStr("t"), sessionid=SecretStr("s"))}
    )

    assert set(secrets(chosen)) == {"t", "s"}
    assert redact("a token t1", []) == "a token t1"
