"""Workers that succeed each other under load: no second uncovered, no trade twice."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest.supervision import workers
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import covered, watermark
from lakehouse_pipeline.market.lines import select_line
from lakehouse_pipeline.market.quotes import HAPPENED, observes_counter
from lakehouse_pipeline.market.windows import SECOND, TimeWindow, floor

TICKERS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT")
SYMBOLS = [f"BINANCE:{ticker}" for ticker in TICKERS]
SPEED = 4.0  # the loop of a busy machine may stand still for 15 s of the feed's time, not longer
LONG = 120  # seconds of real time for one step, on a busy machine


async def succeed(settings, run, eventually, *, times: int) -> None:
    """Start a worker beside the last one, wait for that one to leave, and so on."""
    async with contextlib.AsyncExitStack() as stack:
        last = await stack.enter_async_context(run(settings))
        await eventually(lambda: last.status.quotes > 200, timeout=LONG)
        for _ in range(times):
            leaving = last.status.writer_id
            last = await stack.enter_async_context(run(settings))
            await eventually(
                lambda writer_id=leaving: {
                    status.writer_id: status.ended
                    for status in workers(settings.state_dir, "BINANCE")
                }.get(writer_id, "gone"),
                timeout=LONG,
            )
        rows = last.status.quotes
        await eventually(lambda: last.status.quotes > rows + 100, timeout=LONG)


def overlaps(coverage: pl.DataFrame) -> list[TimeWindow]:
    """Return when two sessions were alive, in whole seconds with two on each side."""
    opened = coverage.filter(kind="opened").sort("start")["start"].to_list()
    ended = coverage.filter(kind="ended").sort("start")["start"].to_list()
    return [
        TimeWindow(floor(second, SECOND) - 2 * SECOND, floor(first, SECOND) + 3 * SECOND)
        for first, second in zip(ended, opened[1:], strict=False)
    ]


def counted(control: pl.DataFrame, symbol: str, window: TimeWindow) -> float:
    """Return what the counter of an uninterrupted line rose by, in event time."""
    told = control.filter(pl.col("symbol") == symbol, observes_counter()).sort(HAPPENED)

    def at(instant: datetime) -> float:
        value = told.filter(pl.col("event_time") < instant)["cumulative_volume"][-1]
        assert isinstance(value, float)
        return value

    return at(window.end) - at(window.start)


@pytest.mark.timeout(1_200)
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
                await eventually(lambda: control.status.quotes > 10, timeout=LONG)
                await succeed(settings, run, eventually, times=times)
                rows = control.status.quotes
                await eventually(lambda: control.status.quotes > rows + 50, timeout=LONG)
            async with run(settings) as reader:
                pass
            return reader, control

    reader, control = asyncio.run(scenario())
    quotes, coverage = reader.table("raw.quotes"), reader.table("raw.coverage")
    # The reader opened one more session.
    sessions = coverage.filter(kind="opened").sort("start").head(times + 1)
    coverage = coverage.filter(pl.col("session_id").is_in(sessions["session_id"].to_list()))
    until = watermark(coverage, "BINANCE")
    window = TimeWindow(sessions["start"][0] + 5 * SECOND, until)
    ends = coverage.filter(kind="ended").sort("start")["reason"].to_list()

    assert ends == ["handed_over"] * times + ["stopped"]
    for symbol in SYMBOLS:
        assert covered(coverage, symbol, window) == [window]

    # The control recorded the same market without interruption.
    whole = TimeWindow(floor(window.start, SECOND) + 5 * SECOND, floor(until, SECOND))
    lines = select_line(quotes, coverage)
    uninterrupted = control.table("raw.quotes")
    assert not lines.select("writer_id", "sequence").is_duplicated().any()
    ours = build_bars_1s(quotes, coverage, whole, until)
    theirs = build_bars_1s(uninterrupted, control.table("raw.coverage"), whole, until)
    values = ["symbol", "open_time", "open", "high", "low", "close", "volume"]
    ours, theirs = (bars.sort("symbol", "open_time").select(values) for bars in (ours, theirs))
    assert ours["volume"].sum() == pytest.approx(theirs["volume"].sum(), rel=1e-9)
    different = pl.concat(
        [ours.join(theirs, on=values, how="anti"), theirs.join(ours, on=values, how="anti")]
    )
    changed = different.select("symbol", "open_time").unique()
    for overlap in overlaps(coverage):
        inside = pl.col("open_time").is_between(overlap.start, overlap.end, closed="left")
        # One second a symbol: that of the switch.
        assert not changed.filter(inside)["symbol"].is_duplicated().any()
        changed = changed.filter(~inside)
        for symbol in SYMBOLS:
            volume = ours.filter(inside, pl.col("symbol") == symbol)["volume"].sum()
            assert volume == pytest.approx(counted(uninterrupted, symbol, overlap), abs=1e-6)
    assert changed.is_empty()
