"""A tape known to the last lot, from the socket to repaired bars, over midnight, a halt, an outage.

What must come out is computed from the tape, and from the packets the server says it sent, in
plain Python: no code of the package takes part in it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import polars as pl
import pytest

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.history import repair
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.feedserver.trades import trades_market
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import HistorySettings

BUSY = [f"BINANCE:{name}USDT" for name in ("AAA", "BBB", "CCC")]
QUIET = "BINANCE:QQQUSDT"
START = datetime(2026, 3, 2, 23, 50, tzinfo=UTC)
MIDNIGHT = START + timedelta(minutes=10)
OUTAGE = START + timedelta(seconds=150), START + timedelta(seconds=250)
HALT = START + timedelta(seconds=330), MIDNIGHT + timedelta(minutes=2)
END = MIDNIGHT + timedelta(minutes=5)  # of the tape
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
LATENESS, HEARTBEAT = timedelta(seconds=5), timedelta(seconds=10)
SPEED = 40.0

pytestmark = pytest.mark.timeout(240)

Trade = tuple[datetime, float, Decimal]


def make_tape(symbol: str) -> list[Trade]:
    """Trades of today, and of the same time yesterday for what leaves a rolling window."""
    random = Random(symbol)
    trades: list[Trade] = []
    rate = 1.5 if symbol in BUSY else 0.01
    for begin, end in ((START - DAY - 5 * MINUTE, END - DAY), (START - 5 * MINUTE, END)):
        at = begin + timedelta(seconds=random.expovariate(rate))
        while at < end:
            price, size = random.randrange(9_000, 11_000) / 100, random.randrange(1, 5_000)
            if not HALT[0] <= at < HALT[1]:
                trades.append((at, price, Decimal(size) / 1_000))
            at += timedelta(seconds=random.expovariate(rate))
    return trades


def sums(trades: list[Trade], step: timedelta) -> dict[datetime, tuple]:
    """Return open, high, low, close and volume of each interval in which something traded."""
    groups: dict[datetime, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[trade[0] - (trade[0] - MIDNIGHT) % step].append(trade)
    found = {}
    for at, inside in groups.items():
        prices = [price for _, price, _ in inside]
        volume = sum((size for *_, size in inside), Decimal(0))
        found[at] = (prices[0], max(prices), min(prices), prices[-1], volume)
    return found


@dataclass
class Recorded:
    kind: str
    tapes: dict[str, list[Trade]]
    sent: list
    seconds: pl.DataFrame
    minutes: pl.DataFrame
    gaps: pl.DataFrame
    symbols: pl.DataFrame

    def of(self, frame: str, symbol: str) -> list[dict]:
        return getattr(self, frame).filter(symbol=symbol).to_dicts()


@pytest.fixture(scope="module", params=["session", "rolling"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    from lakehouse_pipeline_tests.integration.feed.conftest import running_worker, worker_settings

    folder: Path = tmp_path_factory.mktemp(request.param)
    names = [*BUSY, QUIET]
    tapes = {name: make_tape(name) for name in names}
    files = {name: folder / f"{name[8:]}.parquet" for name in names}
    for name, path in files.items():
        pl.DataFrame(
            [(round(at.timestamp() * 1e6), price, float(size)) for at, price, size in tapes[name]],
            schema=["ts_us", "price", "size"],
            orient="row",
        ).write_parquet(path)
    lasts = OUTAGE[1] - OUTAGE[0]
    outage = [
        faults.Drop(at=OUTAGE[0] - START, lasts=lasts),
        faults.Refuse(at=OUTAGE[0] - START, lasts=lasts, status=503),
    ]

    async def scenario():
        server = FeedServer(
            trades_market(files), start=START, speed=SPEED, faults=outage, counter=request.param
        )
        async with server:
            settings = worker_settings(folder, server.url, names, speed=SPEED)
            settings = settings.model_copy(update={"history": HistorySettings(pace=timedelta(0))})
            async with running_worker(settings):
                # Longer than the tape: after a stall of this process frames still wait to be read.
                while server.now() < END + 4 * MINUTE:  # noqa: ASYNC110  # the server's clock has no event
                    await asyncio.sleep(0.1)
            return list(server.sent), await asyncio.to_thread(mend, settings)

    def mend(settings):
        with Lakehouse.open(settings) as lake:
            for turn in range(2):
                for day in (START.date(), END.date()):
                    build_day(lake, "BINANCE", day, studies=[])
                seen = current_watermark(lake, "BINANCE")
                assert seen is not None
                if not turn:
                    repair(lake, settings, "BINANCE", watermark=seen)
            tables = ("bars_1s", "bars_1m", "gaps", "symbols")
            return [lake.scan(f"market.{name}").collect() for name in tables]

    sent, (seconds, minutes, gaps, symbols) = asyncio.run(scenario())
    return Recorded(
        request.param,
        tapes,
        sent,
        seconds.sort("symbol", "open_time"),
        minutes.filter(pl.col("open_time") >= START).sort("symbol", "open_time"),
        gaps.sort("symbol", "start"),
        symbols.sort("symbol", "valid_from"),
    )


def near_the_outage(at: datetime) -> bool:
    return OUTAGE[0] - LATENESS - HEARTBEAT <= at <= OUTAGE[1] + 4 * HEARTBEAT


def snapshot_seconds(sent: list, symbol: str) -> dict[datetime, tuple]:
    """Fold the packets of *symbol* into seconds: the first of each session only sets the state."""
    state: dict[str, dict] = {}
    bars: dict[datetime, list[float]] = defaultdict(list)
    for packet in (packet for packet in sent if packet.name == symbol):
        is_first = packet.session not in state
        known = state.setdefault(packet.session, {})
        known |= packet.values
        if not is_first and "lp_time" in packet.values:
            bars[datetime.fromtimestamp(known["lp_time"], UTC)].append(known["lp"])
    return {at: (p[0], max(p), min(p), p[-1]) for at, p in bars.items()}


@pytest.mark.parametrize("symbol", [*BUSY, QUIET])
def test_prices_are_what_the_snapshots_allow(recorded: Recorded, symbol: str):
    expected = snapshot_seconds(recorded.sent, symbol)
    stored = {
        row["open_time"]: (row["open"], row["high"], row["low"], row["close"])
        for row in recorded.of("seconds", symbol)
    }

    ours = {at: bar for at, bar in stored.items() if not near_the_outage(at)}
    assert ours == {at: bar for at, bar in expected.items() if not near_the_outage(at)}
    assert len(ours) > (100 if symbol in BUSY else 0)


def test_the_outage_is_one_gap_of_each_symbol(recorded: Recorded):
    # A busy machine may add a short hole of its own elsewhere.
    blind = recorded.gaps.filter(
        ~pl.col("cause").is_in(["venue_halt", "quiet_market"]),
        pl.col("start") < OUTAGE[1],
        pl.col("end") > OUTAGE[0],
    )

    assert blind["symbol"].to_list() == [*BUSY, QUIET]
    assert blind["cause"].unique().to_list() == ["feed_gap"]
    for row in blind.to_dicts():
        again = min(p.at for p in recorded.sent if p.name == row["symbol"] and p.at > OUTAGE[1])
        assert OUTAGE[0] - HEARTBEAT - LATENESS <= row["start"] <= OUTAGE[0]
        assert OUTAGE[1] <= row["end"] <= again + HEARTBEAT + LATENESS


def test_the_halt_is_the_venue_s_and_no_gap(recorded: Recorded):
    halts = recorded.gaps.filter(cause="venue_halt")

    assert set(halts["symbol"]) == {*BUSY, QUIET}
    for symbol in BUSY:
        mine = halts.filter(symbol=symbol)
        assert mine["start"].min() >= HALT[0] - 10 * SECOND
        assert mine["end"].max() <= HALT[1] + 10 * SECOND
        assert mine["missed_volume"].to_list() == [0.0] * mine.height


@pytest.mark.parametrize("symbol", [*BUSY, QUIET])
def test_filled_minutes_are_the_tape_s(recorded: Recorded, symbol: str):
    official = sums(recorded.tapes[symbol], MINUTE)
    filled = [row for row in recorded.of("minutes", symbol) if row["source"] != "stream"]

    assert len(filled) >= (2 if symbol in BUSY else 0)
    for row in filled:
        *prices, volume = official[row["open_time"]]
        assert [row[name] for name in ("open", "high", "low", "close")] == prices
        assert Decimal(repr(row["volume"])) == volume
        assert row["volume_basis"] == "official"


@pytest.mark.parametrize("symbol", BUSY)
def test_volume_is_exact_or_says_that_it_is_not(recorded: Recorded, symbol: str):
    seconds, minutes = recorded.of("seconds", symbol), recorded.of("minutes", symbol)
    assert all(row["volume"] is None or row["volume"] >= 0 for row in [*seconds, *minutes])
    if recorded.kind == "rolling":
        assert {row["volume_basis"] for row in seconds} == {"unknown"}
        assert {row["volume"] for row in seconds} == {None}
        check_rolling(recorded, symbol, minutes)
        return
    tape = recorded.tapes[symbol]
    joined = Decimal(repr(next(p for p in recorded.sent if p.name == symbol).values["volume"]))
    gaps = [row for row in recorded.of("gaps", symbol) if row["missed_volume"] is not None]
    assert max(row["missed_volume"] for row in gaps) > 100
    for day in (START.date(), END.date()):
        traded = sum((size for at, _, size in tape if at.date() == day), Decimal(0))
        booked = [r["volume"] for r in seconds if r["open_time"].date() == day]
        booked += [row["missed_volume"] for row in gaps if row["start"].date() == day]
        if day == START.date():
            traded -= joined
        assert sum((Decimal(repr(v)) for v in booked if v is not None), Decimal(0)) == traded


def check_rolling(recorded: Recorded, symbol: str, minutes: list[dict]) -> None:
    """Minutes say their basis; in sum they are off by what left at the ends of stretches."""
    official = sums(recorded.tapes[symbol], MINUTE)
    ours = [row for row in minutes if row["volume_basis"] == "rolled_comp"]
    assert {row["volume_basis"] for row in minutes} <= {"rolled_comp", "official", "unknown"}
    assert len(ours) >= 3
    opens = [row["open_time"] for row in ours]
    stretches = sum(at - MINUTE not in opens for at in opens)
    largest = max(official.get(at - DAY, (0,))[-1] for at in opens)
    off = sum(
        (Decimal(repr(row["volume"])) - official[row["open_time"]][-1] for row in ours), Decimal(0)
    )
    assert abs(off) <= 2 * stretches * largest


def test_the_counter_s_kind_is_stored_with_its_evidence(recorded: Recorded):
    told = recorded.symbols.filter(pl.col("symbol").is_in(BUSY))

    assert told.height == 2 * len(BUSY)  # two days
    assert set(told["counter_kind"]) == {recorded.kind}
    assert told["counter_evidence"].str.contains("steps fell").all()
    assert told["pricescale"].null_count() == 0
