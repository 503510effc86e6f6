"""Eleven minutes of real Binance trades across UTC midnight, from the socket to the bars.

The oracle is plain Python over the packets the feed server says it sent: no code of the package
takes part in it. Prices must agree row for row, volumes to the last decimal.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.feedserver.trades import trades_market
from lakehouse_pipeline.market.bars import build_bars_1s
from lakehouse_pipeline.market.coverage import covered, watermark
from lakehouse_pipeline.market.rollup import roll_up
from lakehouse_pipeline.market.windows import TimeWindow

SYMBOL = "BINANCE:ETHUSDT"
SPEED = 30.0
WINDOW = TimeWindow(
    datetime(2024, 8, 8, 23, 54, tzinfo=UTC), datetime(2024, 8, 9, 0, 6, tzinfo=UTC)
)
MIDNIGHT = datetime(2024, 8, 9, tzinfo=UTC)
JOINED = datetime(2024, 8, 8, 23, 54, 20, tzinfo=UTC)
LAST_TRADE = datetime(2024, 8, 9, 0, 5, 5, tzinfo=UTC)


@dataclass
class ExpectedBar:
    open: float
    high: float
    low: float
    close: float
    volume: Decimal = field(default=Decimal(0))

    def row(self, open_time: datetime) -> tuple:
        return (open_time, self.open, self.high, self.low, self.close, float(self.volume))


def expected_bars(packets: list[dict], step: timedelta) -> list[tuple]:
    """Fold the packets sent to one client into bars, as the words of the design say."""
    first, *updates = packets
    state, level = dict(first), Decimal(repr(first["volume"]))
    bars: dict[datetime, ExpectedBar] = {}
    for values in updates:
        state |= values
        traded = "lp_time" in values
        counted = Decimal(0)
        if "volume" in values:
            counter = Decimal(repr(values["volume"]))
            counted = counter - level if counter >= level else counter
            level = counter
        if not traded:
            assert counted == 0, "only trades move the counter; the day roll sets it to zero"
            continue
        second = datetime.fromtimestamp(state["lp_time"], UTC)
        open_time = second - (second - MIDNIGHT) % step
        price = state["lp"]
        bar = bars.setdefault(open_time, ExpectedBar(price, price, price, price))
        bar.high, bar.low, bar.close = max(bar.high, price), min(bar.low, price), price
        bar.volume += counted
    return [bar.row(open_time) for open_time, bar in sorted(bars.items())]


@pytest.mark.timeout(180)
def test_bars_of_real_trades_equal_those_of_the_snapshots_sent(
    tmp_path: Path, shared_data: Path, make_settings, run, eventually
):
    market = trades_market(
        {SYMBOL: shared_data / "trades_BINANCE_ETHUSDT_20240808-09.parquet"},
        {SYMBOL: shared_data / "quotes_BINANCE_ETHUSDT_20240808-09.parquet"},
    )

    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(
                tmp_path,
                server.url,
                [SYMBOL],
                speed=SPEED,
                ingest={"commit_interval": timedelta(seconds=4)},
            )
            # The counter has been seen before the first trade, so every volume is known.
            await eventually(lambda: server.now() > JOINED)
            async with run(settings) as worker:
                end = WINDOW.end + timedelta(seconds=20)
                await eventually(lambda: server.now() > end, timeout=90)
            return worker, [dict(packet.values) for packet in server.sent]

    worker, packets = asyncio.run(scenario())
    quotes, coverage = worker.table("raw.quotes"), worker.table("raw.coverage")
    upto = watermark(coverage, "BINANCE")
    seconds = build_bars_1s(quotes, coverage, WINDOW, upto)
    minutes = roll_up(seconds, timedelta(minutes=1))

    assert quotes.height == len(packets)
    assert worker.table("raw.rejects").is_empty()
    assert upto >= WINDOW.end
    columns = ["open_time", "open", "high", "low", "close", "volume"]
    expected_seconds = expected_bars(packets, timedelta(seconds=1))
    expected_minutes = expected_bars(packets, timedelta(minutes=1))
    assert seconds.select(columns).rows() == expected_seconds
    assert minutes.select(columns).rows() == expected_minutes
    assert len(expected_seconds) > 500
    assert [row[0] for row in expected_minutes] == [
        WINDOW.start + timedelta(minutes=n) for n in range(12)
    ]
    # Both sides of midnight are covered without a hole, and the counter began again there.
    (seen,) = covered(coverage, SYMBOL, TimeWindow(WINDOW.start, LAST_TRADE))
    assert seen.start < JOINED + timedelta(seconds=10)
    assert seen.end == LAST_TRADE
    ends = minutes.filter(pl.col("open_time") >= MIDNIGHT)["counter_end"]
    assert ends[0] == minutes.filter(open_time=MIDNIGHT)["volume"][0]
    assert minutes["volume_basis"].is_in(["counter_delta", "counter_reset"]).all()
    total = sum(Decimal(repr(volume)) for volume in minutes["volume"])
    print(  # noqa: T201  # the counts the closing note quotes
        f"\n{len(packets)} snapshots sent, {quotes.height} rows landed,"
        f" {len(expected_seconds)} 1s bars, {len(expected_minutes)} 1m bars, volume {total}"
    )
