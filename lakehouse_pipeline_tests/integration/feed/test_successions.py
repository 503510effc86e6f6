"""Workers that succeed each other under load: no second uncovered, no trade twice."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest.supervision import workers
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import covered, watermark
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.windows import SECOND, TimeWindow, floor

TICKERS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT")
SYMBOLS = [f"BINANCE:{ticker}" for ticker in TICKERS]
SPEED = 8.0


async def succeed(settings, run, eventually, *, times: int) -> None:
    """Start a worker beside the last one, wait for that one to leave, and so on."""
    async with contextlib.AsyncExitStack() as stack:
        last = await stack.enter_async_context(run(settings))
        await eventually(lambda: last.status.quotes > 50, timeout=30)
        for _ in range(times):
            leaving = last.status.writer_id
            last = await stack.enter_async_context(run(settings))
            await eventually(
                lambda writer_id=leaving: {
                    status.writer_id: status.ended
                    for status in workers(settings.state_dir, "BINANCE")
                }.get(writer_id, "gone"),
                timeout=60,
            )
        rows = last.status.quotes
        await eventually(lambda: last.status.quotes > rows + 100, timeout=30)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.full)])
def test_successions_leave_no_second_uncovered_and_no_trade_twice(
    tmp_path: Path, make_settings, run, eventually, times: int
):
    async def scenario():
        async with FeedServer(generated_market(SYMBOLS, pace=20), speed=SPEED) as server:
            settings = make_settings(tmp_path / "one", server.url, SYMBOLS, speed=SPEED)
            alone = make_settings(tmp_path / "two", server.url, SYMBOLS, speed=SPEED)
            for each in (settings, alone):
                each.state_dir.mkdir()
            async with run(alone) as control:
                await eventually(lambda: control.status.quotes > 10, timeout=30)
                await succeed(settings, run, eventually, times=times)
                rows = control.status.quotes
                await eventually(lambda: control.status.quotes > rows + 50, timeout=30)
            async with run(settings) as reader:
                pass
            return reader, control

    reader, control = asyncio.run(scenario())
    quotes, coverage = reader.table("raw.quotes"), reader.table("raw.coverage")
    sessions = coverage.filter(kind="opened").sort("start")
    begun, over = sessions["start"][0] + 5 * SECOND, sessions["start"][times]
    window = TimeWindow(begun, over)
    ends = coverage.filter(kind="ended").sort("start")["reason"].to_list()

    assert ends[:times] == ["handed_over"] * times
    for symbol in SYMBOLS:
        assert covered(coverage, symbol, window) == [window]

    # The control recorded the same market without interruption.
    whole = TimeWindow(floor(begun, SECOND) + 5 * SECOND, floor(over, SECOND))
    until = watermark(coverage, "BINANCE")
    lines = select_line(quotes, coverage)
    assert not lines.select("writer_id", "sequence").is_duplicated().any()
    ours = build_bars_1s(quotes, coverage, whole, until)
    theirs = build_bars_1s(control.table("raw.quotes"), control.table("raw.coverage"), whole, until)
    values = ["symbol", "open_time", "open", "high", "low", "close", "volume"]
    ours, theirs = (bars.sort("symbol", "open_time").select(values) for bars in (ours, theirs))
    assert ours["volume"].sum() == pytest.approx(theirs["volume"].sum(), rel=1e-9)
    different = pl.concat(
        [ours.join(theirs, on=values, how="anti"), theirs.join(ours, on=values, how="anti")]
    )
    switched = different.select("symbol", "open_time").unique().group_by("symbol").len()
    assert switched.is_empty() or switched["len"].max() <= times
