"""A recording into the lake: the rows its worker would have landed, once however often."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.errors import InputFileError
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.recorder import record
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest import replay as replay_module
from lakehouse_pipeline.ingest.replay import replay
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.tradingview.frames import encode

START = 1_700_000_000
SECOND = 1_000_000


def line(second: float, text: str | None = None, event: str | None = None) -> str:
    at = int((START + second) * SECOND)
    content = {"text": text} if text is not None else {"event": event}
    return json.dumps({"received_at": at, "session": "rec-1", **content}) + "\n"


def packet(name: str, values: dict) -> str:
    return encode(json.dumps({"m": "qsd", "p": ["qs", {"n": name, "s": "ok", "v": values}]}))


def completed(name: str) -> str:
    return encode(json.dumps({"m": "quote_completed", "p": ["qs", name]}))


def recording(path: Path, updates: int = 30) -> Path:
    lines = [line(0, event="opened"), line(0, encode('{"session_id":"x"}'))]
    for name in ("BINANCE:BTCUSDT", "OKX:BTCUSDT"):
        full = {"lp": 100.0, "lp_time": START, "volume": 5.0}
        lines += [line(0.1, packet(name, full)), line(0.1, completed(name))]
    for n in range(1, updates):
        name = ("BINANCE:BTCUSDT", "OKX:BTCUSDT")[n % 2]
        values = {"lp": 100.0 + n, "lp_time": START + n, "volume": 5.0 + n}
        lines.append(line(n + 0.5, packet(name, values)))
    lines += [
        line(updates, "garbage"),
        line(updates + 1, encode("~h~1")),
        line(updates + 1, event="closed"),
    ]
    path.write_text("".join(lines))
    return path


def table(settings, name: str) -> pl.DataFrame:
    with Lakehouse.open(settings) as lake:
        return lake.scan(name).collect().sort("exchange", "writer_id", "sequence")


@pytest.fixture
def settings(tmp_path: Path, make_settings):
    return make_settings(tmp_path / "state", "ws://unused", ["BINANCE:BTCUSDT"])


def test_a_recording_lands_in_recorded_time_by_exchange(tmp_path: Path, settings):
    report = replay(settings, recording(tmp_path / "a.jsonl"))

    quotes, coverage = table(settings, "raw.quotes"), table(settings, "raw.coverage")
    assert (report.quotes, report.sessions, report.rejects) == (31, 1, 1)
    assert quotes.group_by("exchange").len().sort("exchange").rows() == [
        ("BINANCE", 15),
        ("OKX", 16),
    ]
    assert quotes.group_by("kind").len().sort("kind").rows() == [("price", 29), ("restore", 2)]
    for exchange in ("BINANCE", "OKX"):
        alive = coverage.filter(exchange=exchange, kind="alive")
        assert alive["start"].min().timestamp() == START
        assert alive["end"].max().timestamp() == START + 31
        assert coverage.filter(exchange=exchange, kind="ended")["reason"].to_list() == ["closed"]
    assert table(settings, "raw.rejects")["exchange"].to_list() == ["BINANCE"]


def test_a_live_recording_replays_to_what_the_server_sent(tmp_path: Path, settings, eventually):
    path, symbol = tmp_path / "live.jsonl", "BINANCE:BTCUSDT"

    async def scenario():
        async with FeedServer(generated_market(pace=20), speed=20) as server:
            stop = asyncio.Event()
            feed = settings.feed.model_copy(update={"url": server.url})
            task = asyncio.create_task(record(feed, [symbol], path, stop=stop, now=server.now))
            await eventually(lambda: len(server.sent) > 60, timeout=30)
            stop.set()
            await task
            return [packet.values for packet in server.sent]

    sent = asyncio.run(scenario())
    replay(settings, path)

    quotes = table(settings, "raw.quotes")
    prices = quotes.filter(pl.col("changed").str.contains("last_price"))["last_price"].to_list()
    assert quotes.height > 50
    assert prices == [values["lp"] for values in sent if "lp" in values][: len(prices)]
    assert table(settings, "raw.rejects").is_empty()


def test_replaying_again_adds_nothing(tmp_path: Path, settings):
    path = recording(tmp_path / "a.jsonl")
    replay(settings, path)
    before = table(settings, "raw.quotes")

    replay(settings, path)

    assert table(settings, "raw.quotes").equals(before)


def test_a_replay_that_broke_off_is_completed_by_the_next(
    tmp_path: Path, settings, monkeypatch: pytest.MonkeyPatch
):
    path = recording(tmp_path / "a.jsonl")
    whole = settings.model_copy(update={"state_dir": tmp_path / "other"})
    replay(whole, path)
    # Small batches and commits, of which the second one fails.
    monkeypatch.setattr(replay_module, "BATCH", 5)
    small = settings.model_copy(
        update={"ingest": settings.ingest.model_copy(update={"commit_rows": 5})}
    )
    appended = []
    append = Lakehouse.append

    def failing(lake, name, frame, **kwargs):
        appended.append(name)
        if len(appended) == 4:
            raise OSError("the store is gone")
        return append(lake, name, frame, **kwargs)

    monkeypatch.setattr(Lakehouse, "append", failing)
    with pytest.raises(OSError, match="the store is gone"):
        replay(small, path)

    replay(small, path)

    identity = ["writer_id", "sequence", "event_time", "last_price"]
    landed, expected = table(small, "raw.quotes"), table(whole, "raw.quotes")
    assert landed.select(identity).equals(expected.select(identity))


def test_a_torn_last_line_is_left_out(tmp_path: Path, settings):
    path = recording(tmp_path / "a.jsonl")
    path.write_text(path.read_text() + '{"received_at": 17')

    assert replay(settings, path).quotes == 31


@pytest.mark.parametrize(
    ("content", "problem"),
    [("not json\n", "line 1"), ("", "no quotes"), ('{"received_at": 1}\n', "line 1")],
)
def test_a_file_that_is_no_recording_is_named_with_its_line(
    tmp_path: Path, settings, content, problem
):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)

    with pytest.raises(InputFileError, match=problem):
        replay(settings, path)


def test_a_missing_recording_is_one_clear_error(tmp_path: Path, settings):
    with pytest.raises(InputFileError, match="cannot be read"):
        replay(settings, tmp_path / "absent.jsonl")
