"""The command line as a user has it: serve, record, replay, build, read."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

LAKEHOUSE = [sys.executable, "-m", "lakehouse_pipeline.cli"]
SYMBOL = "BINANCE:BTCUSDT"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "exchanges.yaml").write_text("exchanges: {BINANCE: {symbols: [BTCUSDT, ETHUSDT]}}\n")
    return folder


@pytest.fixture(scope="module")
def feed(folder: Path) -> Iterator[str]:
    """The address of a `lakehouse feed serve` process, ended by Ctrl-C."""
    environment = {**os.environ, "HOME": str(folder)}
    with subprocess.Popen(
        [*LAKEHOUSE, "feed", "serve", "--seed", "3"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        listening, http = server.stdout.readline(), server.stdout.readline()
        assert re.fullmatch(r"LISTENING ws://127\.0\.0\.1:\d+\n", listening)
        assert re.fullmatch(r"HTTP http://127\.0\.0\.1:\d+\n", http)
        yield listening.split()[1]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0


@pytest.fixture(scope="module")
def attempt(folder: Path, feed: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def lakehouse(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*LAKEHOUSE, *arguments],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "LAKEHOUSE_FEED__URL": feed,
                "LAKEHOUSE_UI__PORT": "0",  # doctor must not find a neighbor's server
                "LAKEHOUSE_GRPC__PORT": "0",
            },
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return lakehouse


@pytest.fixture(scope="module")
def run(attempt: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """``run(*arguments)`` returns standard output of a command that must end well."""

    def lakehouse(*arguments: str) -> str:
        result = attempt(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return lakehouse


@pytest.fixture(scope="module")
def built(run: Callable[..., str], folder: Path) -> Path:
    """A lake with a recording of some seconds, replayed and built.

    The last five of them are never closed: they are within the lateness.
    """
    run("feed", "record", "--out", "feed.jsonl", "--exchange", "BINANCE", "--seconds", "16")
    run("replay", "feed.jsonl")
    lines = [json.loads(line) for line in (folder / "feed.jsonl").read_text().splitlines()]
    days = [
        datetime.fromtimestamp(lines[n]["received_at"] / 1e6, tz=UTC).date().isoformat()
        for n in (0, -1)
    ]
    run("build", "--exchange", "BINANCE", "--from", days[0], "--to", days[1])
    return folder


def test_a_recording_is_lines_of_the_promised_shape(built: Path) -> None:
    lines = [json.loads(line) for line in (built / "feed.jsonl").read_text().splitlines()]

    assert lines[0]["event"] == "opened"
    assert all(isinstance(line["received_at"], int) and line["session"] for line in lines)
    shapes = {frozenset(line) - {"received_at", "session"} for line in lines}
    assert shapes == {frozenset({"text"}), frozenset({"event"})}
    assert any("qsd" in line.get("text", "") for line in lines)


def test_machine_formats_agree_and_hold_nothing_else(built: Path, run: Callable[..., str]) -> None:
    arguments = ("bars", SYMBOL, "--interval", "1s")

    rows = list(csv.DictReader(io.StringIO(run(*arguments, "--format", "csv"))))
    objects = json.loads(run(*arguments, "--format", "json"))

    assert rows
    assert list(rows[0])[1:8] == [
        "symbol",
        "open_time",
        "open",
        "high",
        "low",
        "close",
        "prev_close",
    ]
    assert [row["open_time"] for row in rows] == [each["open_time"] for each in objects]
    assert [float(row["close"]) for row in rows] == [each["close"] for each in objects]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0]["open_time"])
    assert built.exists()


def test_parquet_on_standard_output_is_the_table(built: Path) -> None:
    result = subprocess.run(
        [*LAKEHOUSE, "bars", SYMBOL, "--interval", "1s", "--format", "parquet"],
        cwd=built,
        capture_output=True,
        timeout=50,
        check=True,
    )

    frame = pl.read_parquet(io.BytesIO(result.stdout))

    assert frame.height > 0
    assert frame["symbol"].unique().to_list() == [SYMBOL]


def test_a_ticker_is_enough_where_one_exchange_has_it(built: Path, run: Callable[..., str]) -> None:
    assert run("bars", "BTCUSDT", "--interval", "1s", "--format", "csv") == run(
        "bars", SYMBOL, "--interval", "1s", "--format", "csv"
    )
    assert built.exists()


def test_dense_bars_and_indicators_add_their_columns(built: Path, run: Callable[..., str]) -> None:
    dense = run("bars", SYMBOL, "--interval", "1s", "--dense", "--format", "csv")
    wide = run("bars", SYMBOL, "--interval", "1s", "--with", "rsi,macd", "--format", "csv")

    assert "fill_kind" in dense.splitlines()[0]
    assert {"rsi", "macd", "signal", "histogram"} <= set(wide.splitlines()[0].split(","))
    assert built.exists()


@pytest.mark.parametrize("seconds", [1, 3])
def test_the_last_of_a_span_are_as_many_as_fit_into_it(
    built: Path, run: Callable[..., str], seconds: int
) -> None:
    arguments = ("bars", SYMBOL, "--interval", "1s", "--dense", "--format", "csv")
    every = run(*arguments).splitlines()

    last = run(*arguments, "--last", f"{seconds}s").splitlines()

    assert len(every) > seconds + 1
    assert last == [every[0], *every[-seconds:]]
    assert built.exists()


def test_a_table_shows_what_was_asked_for_in_words(built: Path, run: Callable[..., str]) -> None:
    # Some of the few seconds recorded may be missed: two bars suffice for these.
    said = run("bars", SYMBOL, "--interval", "1s", "--with", "macd:1:2:1", "--carry")

    head = said.splitlines()[2]
    assert said.startswith(f"{SYMBOL} 1s, UTC")
    assert re.split(r" {2,}", head.strip())[:9] == [
        *("open_time", "open", "high", "low", "close", "volume"),
        *("macd:1:2:1", "macd:1:2:1 signal", "macd:1:2:1 histogram"),
    ]
    assert said.splitlines()[-1].startswith("The newest 60 intervals.")
    assert "newest" not in run("bars", SYMBOL, "--interval", "1s", "--last", "5s")
    assert built.exists()


def test_a_ledger_without_a_gap_says_when_it_is_written(built: Path, run: Callable[..., str]):
    said = run("gaps", SYMBOL, "--from", "2001-01-01", "--to", "2001-01-02")

    assert said == (
        "gaps: none in the ledger, which is written each hour and by `lakehouse build`.\n"
    )
    assert built.exists()


def test_what_would_be_ignored_is_refused(built: Path, attempt) -> None:
    result = attempt("bars", SYMBOL, "--carry")

    assert result.returncode == 2
    assert "--carry needs --with." in result.stderr
    assert built.exists()


def test_a_chart_that_cannot_be_written_is_one_line(built: Path, attempt, tmp_path: Path) -> None:
    assert built.exists()
    out = tmp_path / "absent" / "chart.html"

    result = attempt("chart", SYMBOL, "--out", str(out))

    assert result.returncode == 2
    assert "No such file or directory" in result.stderr
    assert "--out" in result.stderr
    assert "Traceback" not in result.stderr


def test_status_and_tables_count_what_is_there(built: Path, run: Callable[..., str]) -> None:
    (status,) = csv.DictReader(io.StringIO(run("status", "--format", "csv")))
    tables = {
        row["table"]: row for row in csv.DictReader(io.StringIO(run("tables", "--format", "csv")))
    }

    assert status["exchange"] == "BINANCE"
    assert int(status["quotes"]) == int(tables["raw.quotes"]["rows"]) > 0
    assert int(tables["market.bars_1s"]["rows"]) > 0
    assert built.exists()


def test_a_chart_is_one_file_that_needs_no_network(built: Path, run: Callable[..., str]) -> None:
    run("chart", SYMBOL, "--interval", "1s", "--out", "chart.html")

    page = (built / "chart.html").read_text()

    assert "candlestick" in page
    assert not re.search(r'<(script|link)[^>]+(src|href)="http', page)


def test_replaying_again_adds_no_row(built: Path, run: Callable[..., str]) -> None:
    before = run("tables", "--format", "csv")

    run("replay", "feed.jsonl")

    assert before == run("tables", "--format", "csv")
    assert built.exists()


def test_doctor_listens_and_records_what_the_feed_is_like(
    built: Path, run: Callable[..., str]
) -> None:
    said = run("doctor", "--listen", "4")

    (report,) = (built / ".lakehouse" / "reports").glob("feed-facts-*.json")
    facts = json.loads(report.read_text())
    assert facts["frames"] > 0
    assert facts["framing_errors"] == 0
    assert facts["update_modes"] == ["streaming"]
    assert "volume counter: undecided" in said


def printed_in_a_terminal(columns: int) -> str:
    """What a terminal of that many columns receives of a table of bars."""
    script = """
import polars as pl
from lakehouse_pipeline.cli.output import Format, write
prices = {name: [104_321.123456] for name in ("open", "high", "low", "close")}
frame = pl.DataFrame({"open_time": ["2026-01-05 10:00"], **prices, "source": ["streamed"]})
write(frame, Format.table)
"""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    subprocess.run([sys.executable, "-c", script], stdout=theirs, check=True, env=env)
    os.close(theirs)
    text = b""
    with suppress(OSError):  # Linux: the other end was closed
        while piece := os.read(ours, 4096):
            text += piece
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode())


def test_a_narrow_terminal_gets_whole_columns_and_the_names_of_the_others():
    lines = printed_in_a_terminal(60).splitlines()

    assert max(map(len, lines[:-1])) <= 60
    assert "2026-01-05 10:00" in "".join(lines)
    assert "104,321.1235" in "".join(lines)
    assert lines[-1].startswith("Not shown in 60 columns: ")
    assert lines[-1].endswith("close, source. --format csv has them.")


def test_a_wide_terminal_gets_every_column():
    lines = printed_in_a_terminal(200).splitlines()

    assert "streamed" in "".join(lines)
    assert "Not shown" not in "".join(lines)
