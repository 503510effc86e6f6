"""A mistake ends as one clear line with its mend and the right exit code, never as a traceback."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import load_settings

USAGE, ENVIRONMENT = 2, 1
GOOD = "exchanges: {BINANCE: {symbols: [BTCUSDT]}}\nui: {port: 0}\ngrpc: {port: 0}\n"
NOWHERE = "ws://127.0.0.1:1"


@pytest.fixture
def run(tmp_path: Path):
    """``run(*arguments, yaml=…, **settings)`` in an empty folder with no other settings."""

    def lakehouse(
        *arguments: str, yaml: str = GOOD, **settings: str
    ) -> subprocess.CompletedProcess:
        (tmp_path / "exchanges.yaml").write_text(yaml)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LAKEHOUSE_FEED__URL": NOWHERE,
            **settings,
        }
        return subprocess.run(
            [sys.executable, "-m", "lakehouse_pipeline.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return lakehouse


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder nobody can write, not even root; skips where mounting is not allowed."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("mounting a read-only folder is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB; skips where mounting is not allowed."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def assert_one_line(result: subprocess.CompletedProcess, status: int, *words: str) -> None:
    said = [line for line in result.stderr.splitlines() if not line.startswith("{")]

    assert "Traceback" not in result.stderr + result.stdout
    assert status == result.returncode, result.stderr + result.stdout
    assert len(said) == 1, result.stderr
    for word in words:
        assert word in said[0]


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("exchanges: {BINANCE: [", ("exchanges.yaml", "not valid YAML")),
        ("- a list", ("exchanges.yaml", "no mapping", "Start it with 'exchanges:'")),
        ("exchange: {}", ("unknown key 'exchange'", "Known keys")),
        ("exchanges: {binance: {symbols: [A]}}", ("'binance'", "in capitals")),
        ("exchanges: {BINANCE: {symbols: [btc-usdt]}}", ("exchanges.BINANCE.symbols", "btc-usdt")),
        ("exchanges: {BINANCE: {symbols: []}}", ("exchanges.BINANCE.symbols",)),
        ("exchanges: {BINANCE: {}}", ("exchanges.BINANCE.symbols", "required")),
        (f"{GOOD}indicators: {{rsj: {{}}}}", ("'rsj' is not known", "Known: atr")),
        (f"{GOOD}indicators: {{rsi: {{length: 0}}}}", ("rsi: length must be a whole number",)),
        (f"{GOOD}indicators: {{rsi: {{length: x}}}}", ("indicators.rsi.length", "exchanges.yaml")),
        (f"{GOOD}indicators: {{macd: {{fast: 30}}}}", ("fast must be less than slow",)),
        (f"{GOOD}indicators: [rsi]", ("Setting indicators", "exchanges.yaml")),
        ("ui: {port: 99999}", ("ui.port", "LAKEHOUSE_UI__PORT")),
    ],
)
def test_wrong_yaml_names_the_entry_and_the_mend(run, yaml: str, words: tuple[str, ...]) -> None:
    assert_one_line(run("doctor", yaml=yaml), USAGE, *words)


def test_unknown_exchange_lists_the_known_ones(run) -> None:
    result = run("feed", "record", "--out", "x.jsonl", "--exchange", "NOPE")

    assert_one_line(result, USAGE, "NOPE", "BINANCE")


def test_no_exchange_at_all_says_where_to_write_one(run) -> None:
    assert_one_line(run("doctor", yaml=""), USAGE, "No exchange", "exchanges:")


def test_missing_configuration_file_is_named(run) -> None:
    assert_one_line(run("doctor", LAKEHOUSE_CONFIG="gone.yaml"), USAGE, "gone.yaml")


def test_reading_does_not_make_a_lake(run, tmp_path: Path) -> None:
    result = run("bars", "BTCUSDT", LAKEHOUSE_STATE_DIR="nothing-here")

    assert_one_line(result, ENVIRONMENT, "nothing-here", "make demo")
    assert not (tmp_path / "nothing-here").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bars", "BTCUSDT", "--interval", "7m"), ("7m", "divides a day")),
        (("bars", "BTCUSDT", "--with", "rsj"), ("rsj", "rsi")),
        (("bars", "BTCUSDT", "--with", "macd:x"), ("macd:x", "macd:12:26:9")),
        (("bars", "BTCUSDT", "--with", "rsi,macd(5,10,3)"), ("macd(5,10,3)", "macd:5:10:3")),
        (("bars", "BTCUSDT", "--last", "soon"), ("soon", "30m")),
        (("bars", "BTCUSDT", "--last", "1h", "--to", "2026-11-01"), ("--last", "--to")),
        (("chart", "BTCUSDT", "--with", "rsi:0"), ("rsi", "whole number")),
        (("build", "--exchange", "BINANCE", "--from", "2026-13-01", "--to", "2026-11-01"), ("13",)),
        (
            ("build", "--exchange", "BINANCE", "--from", "2026-11-02", "--to", "2026-11-01"),
            ("before",),
        ),
        (("feed", "serve", "--market", "trades", "--trades", "nonsense"), ("SYMBOL=FILE",)),
        (("feed", "serve", "--market", "bazaar"), ("bazaar", "generated")),
        (("feed", "serve", "--counter", "weekly"), ("weekly", "session")),
        (("feed", "serve", "--faults", "gone.yaml"), ("gone.yaml",)),
        (("replay", "gone.jsonl"), ("gone.jsonl",)),
    ],
)
def test_wrong_arguments_are_named(run, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_one_line(run(*arguments), USAGE, *words)


def test_unreachable_feed_is_told_by_doctor(run) -> None:
    result = run("doctor")

    assert result.returncode == ENVIRONMENT
    assert re.search(r"FAIL\S* +feed .*LAKEHOUSE_FEED__URL", result.stdout)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("setting", ["LAKEHOUSE_UI__PORT", "LAKEHOUSE_GRPC__PORT"])
def test_port_in_use_names_its_setting(run, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = {"LAKEHOUSE_UI__PORT", "LAKEHOUSE_GRPC__PORT"} - {setting}

        result = run("up", **{setting: port, other.pop(): "0"})

    assert_one_line(result, ENVIRONMENT, port, setting)


def test_feed_server_names_a_port_in_use(run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        result = run("feed", "serve", "--port", port)

    assert_one_line(result, ENVIRONMENT, port, "--port")


@pytest.mark.parametrize("command", [("up",), ("status",)])
def test_read_only_state_folder_is_named(run, read_only: Path, command: tuple[str, ...]) -> None:
    result = run(*command, LAKEHOUSE_STATE_DIR=str(read_only), LAKEHOUSE_UI__PORT="0")

    assert_one_line(result, ENVIRONMENT, str(read_only), "LAKEHOUSE_STATE_DIR")


def test_full_disk_is_named(run, full: Path) -> None:
    result = run("up", LAKEHOUSE_STATE_DIR=str(full), LAKEHOUSE_UI__PORT="0")

    assert_one_line(result, ENVIRONMENT, "LAKEHOUSE_STATE_DIR")


def test_state_folder_that_is_a_file_is_named(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = run("up", LAKEHOUSE_STATE_DIR="file", LAKEHOUSE_UI__PORT="0")

    assert_one_line(result, ENVIRONMENT, "file", "LAKEHOUSE_STATE_DIR")


def test_the_demos_lake_is_pointed_to(run, tmp_path: Path) -> None:
    Lakehouse.open(load_settings(state_dir=tmp_path / ".lakehouse" / "demo")).close()

    result = run("status")

    assert_one_line(result, ENVIRONMENT, "no lake", "LAKEHOUSE_STATE_DIR=.lakehouse/demo")
    assert not (tmp_path / ".lakehouse" / "catalog.db").exists()


def test_a_recording_of_nothing_is_no_success(run) -> None:
    result = run("feed", "record", "--out", "x.jsonl", "--exchange", "BINANCE", "--seconds", "1")

    assert_one_line(result, ENVIRONMENT, "Nothing was recorded", NOWHERE)


def test_catalog_that_is_no_database_is_named(run, tmp_path: Path) -> None:
    state = tmp_path / ".lakehouse"
    state.mkdir()
    (state / "catalog.db").write_bytes(b"this is no database, but long enough to look so" * 99)

    result = run("status")

    assert_one_line(result, ENVIRONMENT, "catalog")


def test_catalog_from_a_newer_version_is_refused(run, tmp_path: Path) -> None:
    Lakehouse.open(load_settings(state_dir=tmp_path)).close()
    age_one_table(tmp_path)

    result = run("status", LAKEHOUSE_STATE_DIR=str(tmp_path))

    assert_one_line(result, ENVIRONMENT, "schema version 999", "Upgrade")


def age_one_table(state: Path) -> None:
    """Write into a table's metadata that a later version of this project made it."""
    with sqlite3.connect(state / "catalog.db") as database:
        (location,) = database.execute(
            "SELECT metadata_location FROM iceberg_tables WHERE table_name = 'quotes'"
        ).fetchone()
    metadata = Path(location.removeprefix("file://"))
    text = metadata.read_text()
    newer = re.sub(r'("lakehouse\.schema-version"\s*:\s*)"\d+"', r'\1"999"', text)
    assert newer != text
    metadata.write_text(newer)
