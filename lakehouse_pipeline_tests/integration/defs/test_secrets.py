"""Tokens and cookies are in nothing that Dagster keeps of a stream, nor in what commands leave."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest

from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer

TOKEN, COOKIE, SIGNATURE = "tok3n-Xq7", "c00kie-Zr5", "sign4ture-Wp9"
SECRETS = (TOKEN, COOKIE, SIGNATURE)
LAKEHOUSE = [sys.executable, "-m", "lakehouse_pipeline.cli"]


@pytest.fixture
def feed() -> Callable[..., object]:
    """``with feed(*faults) as server``: a feed server in a thread of its own."""

    @contextmanager
    def serving(*troubles: faults.Fault) -> Iterator[FeedServer]:
        server = FeedServer(
            generated_market(["BINANCE:BTCUSDT"], pace=20), tokens=[TOKEN], faults=troubles
        )
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            async with server:
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert ready.wait(10)
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    return serving


@pytest.fixture
def with_secrets(monkeypatch: pytest.MonkeyPatch) -> Callable[[FeedServer], None]:
    """Configure the feed and every secret as a user does: in the environment."""

    def configure(server: FeedServer) -> None:
        told = {
            "FEED__URL": server.url,
            "FEED__ORIGIN": server.http_url,
            "FEED__TOKEN": TOKEN,
            "FEED__SESSIONID": COOKIE,
            "FEED__SESSIONID_SIGN": SIGNATURE,
            "FEED__CONNECT_INTERVAL": "PT0S",
            "FEED__REFUSED_PAUSE": "PT1S",
            "INGEST__COMMIT_INTERVAL": "PT0.5S",
            "UI__PORT": "0",
            "GRPC__PORT": "0",
        }
        for name, value in told.items():
            monkeypatch.setenv(f"LAKEHOUSE_{name}", value)

    return configure


def traces(folder: Path, *texts: str) -> dict[str, list[str]]:
    """Return by secret where it is: in which files under *folder*, in which of *texts*."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    contents = {str(path): path.read_bytes() for path in files}
    contents |= {f"text {number}": text.encode() for number, text in enumerate(texts)}
    return {
        secret: [where for where, content in contents.items() if secret.encode() in content]
        for secret in SECRETS
    }


NOWHERE: dict[str, list[str]] = {secret: [] for secret in SECRETS}


def test_dagster_keeps_no_secret_of_a_stream(
    tmp_path: Path, defs: dg.Definitions, feed, with_secrets, capfd
):
    """A run that is refused its token, records, and then fails of a ban: every kind of record."""
    home = tmp_path / "dagster"
    home.mkdir()
    expired = faults.ExpiredToken(lasts=timedelta(seconds=2), tokens=[TOKEN])
    ban = faults.Ban(at=timedelta(seconds=6))
    with feed(expired, ban) as server, dg.DagsterInstance.local_temp(str(home)) as instance:
        with_secrets(server)
        with warnings.catch_warnings():
            # Dagster's own partition loader asks for what Dagster has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            result = defs.resolve_job_def("stream_quotes").execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config={"ops": {"record_quotes": {"config": {"exchange": "BINANCE"}}}},
            )
        run = instance.get_run_by_id(result.run_id)
        events = [
            record.event_log_entry for record in instance.get_records_for_run(run.run_id).records
        ]

    assert not result.success
    assert "banned" in repr(events)
    assert any(event.dagster_event and event.dagster_event.is_step_failure for event in events)
    out, err = capfd.readouterr()
    assert server.sent
    assert traces(tmp_path, out, err, repr(run), repr(run.run_config), repr(events)) == NOWHERE


@pytest.mark.full
def test_commands_leave_no_secret(tmp_path: Path, settings, feed, with_secrets):
    """What doctor and the recorder say and write, and how their processes are called."""
    recording = tmp_path / "feed.jsonl"
    commands = (
        ["doctor", "--listen", "1"],
        ["feed", "record", "--out", str(recording), "--exchange", "BINANCE", "--seconds", "2"],
    )
    said: list[str] = []
    with feed() as server:
        with_secrets(server)
        for arguments in commands:
            with subprocess.Popen(
                [*LAKEHOUSE, *arguments],
                cwd=tmp_path,
                env=os.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                while process.poll() is None:
                    said += command_lines(process.pid)
                    assert process.stdout is not None
                    said.append(process.stdout.readline())
                said.append(process.stdout.read())

    assert any("record" in text for text in said)
    assert recording.stat().st_size > 0
    assert list(settings.state_dir.rglob("reports/*"))
    assert traces(tmp_path, *said) == NOWHERE


def command_lines(pid: int) -> list[str]:
    try:
        process = psutil.Process(pid)
        return [" ".join(each.cmdline()) for each in (process, *process.children(recursive=True))]
    except psutil.Error:  # it has just ended
        return []
