"""Before anything is started: what is wrong is said in one line, and nothing is written."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import (
    EnvironmentFault,
    PortInUse,
    SettingsError,
    StateDirectoryError,
)
from lakehouse_pipeline.interrupts import Interrupts
from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.stack import down, up
from lakehouse_pipeline.stack.demo import demo
from lakehouse_pipeline.stack.layout import Layout
from lakehouse_pipeline.stack.stack import Stack

EXCHANGES = {"BINANCE": {"symbols": ["BTCUSDT"]}}


@pytest.fixture
def settings(tmp_path):
    def make(**more: object) -> Settings:
        return Settings(
            **{
                "state_dir": tmp_path / "state",
                "config": tmp_path / "exchanges.yaml",
                "exchanges": EXCHANGES,
                "ui": {"port": 0},
                "grpc": {"port": 0},
                **more,
            }
        )

    return make


@pytest.mark.parametrize("section", ["ui", "grpc"])
def test_a_port_in_use_is_named_with_its_setting(settings, section, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = {section: {"port": server.getsockname()[1]}}

        with pytest.raises(PortInUse, match=f"LAKEHOUSE_{section.upper()}__PORT"):
            up(settings(**taken))

    assert not list(tmp_path.iterdir())


def test_a_port_asked_for_is_not_given_up_by_the_demo(settings):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = {"ui": {"port": server.getsockname()[1]}}

        with pytest.raises(PortInUse, match="LAKEHOUSE_UI__PORT"):
            demo(settings(**taken))


def test_a_state_folder_that_is_a_file_is_named(settings, tmp_path):
    (tmp_path / "state").write_text("not a folder")

    with pytest.raises(StateDirectoryError, match="cannot be written"):
        up(settings())


def test_no_exchange_is_a_mistake_in_the_settings(settings):
    with pytest.raises(SettingsError, match="names no exchange"):
        up(settings(exchanges={}))


def test_a_state_folder_has_one_owner(settings, tmp_path):
    layout = Layout((tmp_path / "state").resolve())
    layout.make()
    layout.write_state(Process.of(os.getpid()), [])

    with pytest.raises(EnvironmentFault, match=f"Process {os.getpid()} already runs"):
        up(settings())


def test_stopping_what_does_not_run_is_no_mistake(settings, tmp_path):
    said: list[str] = []

    assert down(settings(), say=said.append) == 0
    assert said == [f"Nothing runs on {tmp_path / 'state'}."]


def test_what_is_not_ready_in_time_is_said_with_what_ails_it_and_the_last_words(
    settings, tmp_path, eventually_sync
):
    with Interrupts() as interrupts:
        stack = Stack(settings(), interrupts, say=print)
        script = "import time; print('still thinking', flush=True); time.sleep(600)"
        child = stack.start("webserver", [sys.executable, "-c", script])
        try:
            eventually_sync(child.output)

            with pytest.raises(EnvironmentFault) as caught:
                stack.wait_until_well("Dagster", lambda: ["daemon SENSOR"], patience=0)
        finally:
            child.stop()

    assert str(caught.value) == (
        "Dagster was not ready within 0 s: daemon SENSOR. "
        f"The logs in {tmp_path / 'state' / 'logs'} end so: webserver: still thinking"
    )


def test_a_terminals_interrupt_while_tables_are_prepared_ends_it_in_order(tmp_path):
    (tmp_path / "exchanges.yaml").write_text("exchanges: {BINANCE: {symbols: [BTCUSDT]}}")
    free = {"LAKEHOUSE_UI__PORT": "0", "LAKEHOUSE_GRPC__PORT": "0", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "lakehouse_pipeline.cli", "up"],
        cwd=tmp_path,
        env={**os.environ, **free, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        first = owner.stdout.readline()
        while not select.select([owner.stdout], [], [], 0.05)[0]:  # whatever its children load now
            os.killpg(owner.pid, signal.SIGINT)
        said = owner.stdout.read()

    assert first.startswith("Starting")
    assert said == "Stopped before everything had started.\n"
    assert owner.returncode == 0
