"""What snapshots can and cannot recover of real trades, through both kinds of counter.

Real trades from the server's socket through worker, builds and repair into the lake; the truth is
summed here from the files in plain Python and decimals. Shares and errors inform, except where the
method promises exactness.

For the rolling counter the hour is preceded by itself a day earlier, shifted, its sizes reversed:
what leaves the window is then known and not what comes in.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from lakehouse_pipeline.build.bars import current_watermark
from lakehouse_pipeline.build.day import build_day
from lakehouse_pipeline.build.history import repair
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.feedserver.trades import trades_market
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import HistorySettings

from .lines import Line

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SYMBOL, FILE = "COINBASE:BTCUSD", "trades_COINBASE_BTCUSD_20230905.parquet"
BEGIN = datetime(2023, 9, 5, 16, tzinfo=UTC)
DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
SPEED = 60.0
APART = timedelta(seconds=7.3)  # so that what leaves the window does not leave with a trade
PRICES = ("open", "high", "low", "close")


@dataclass
class Truth:
    """What was traded in one interval."""

    prices: list[float] = field(default_factory=list)
    volume: Decimal = Decimal(0)

    def price(self, name: str) -> float:
        pick = {"open": lambda p: p[0], "close": lambda p: p[-1], "high": max, "low": min}
        return pick[name](self.prices)


def run(folder: Path, *, scale: float, say: Callable[[object], None]) -> list[Line]:
    """Record and build the hour, or *scale* of it, once a kind, and say what came of it."""
    if not DATA.is_dir():
        say(f"the real trades are not on this machine: {DATA} is missing")
        return []
    length = max(timedelta(hours=1) * min(scale, 1.0), 6 * MINUTE)
    lines: list[Line] = []
    for kind in ("session", "rolling"):
        trades = tape(folder / f"{kind}.parquet", with_yesterday=kind == "rolling")
        (folder / kind).mkdir()
        say(f"{kind} counter, {length} of {SYMBOL}")
        seconds, minutes = asyncio.run(recorded(folder / kind, trades, kind, length))
        lines += compare(kind, seconds, minutes, truth_of(trades, length))
    return lines


def tape(path: Path, *, with_yesterday: bool) -> Path:
    """Write the trades, and with yesterday's if asked, where the server can read them."""
    today = pl.read_parquet(DATA / FILE).select("ts_us", "price", "size").sort("ts_us")
    yesterday = today.with_columns(
        pl.col("ts_us") - (DAY - APART) // timedelta(microseconds=1), pl.col("size").reverse()
    )
    pl.concat([yesterday, today] if with_yesterday else [today]).write_parquet(path)
    return path


async def recorded(
    folder: Path, trades: Path, kind: str, length: timedelta
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the seconds and minutes that server, worker, builds and repair make of *trades*."""
    from lakehouse_pipeline_tests.integration.feed.conftest import running_worker, worker_settings

    market = trades_market({SYMBOL: trades})
    begin = BEGIN - 30 * SECOND if kind == "rolling" else BEGIN
    async with FeedServer(market, start=begin, speed=SPEED, counter=kind) as server:
        settings = worker_settings(folder, server.url, [SYMBOL], speed=SPEED)
        settings = settings.model_copy(update={"history": HistorySettings(pace=timedelta(0))})
        async with running_worker(settings):
            while server.now() < BEGIN + length + 20 * SECOND:  # noqa: ASYNC110  # the server's clock has no event
                await asyncio.sleep(0.1)
        return await asyncio.to_thread(_built, settings, repaired=kind == "rolling")


def _built(settings, *, repaired: bool) -> tuple[pl.DataFrame, pl.DataFrame]:  # Settings
    with Lakehouse.open(settings) as lake:
        exchange = SYMBOL.split(":", maxsplit=1)[0]
        build_day(lake, exchange, BEGIN.date(), studies=[])
        if repaired:
            watermark = current_watermark(lake, exchange)
            assert watermark is not None
            repair(lake, settings, exchange, watermark=watermark)
            build_day(lake, exchange, BEGIN.date(), studies=[])
        tables = ("market.bars_1s", "market.bars_1m")
        first, second = (lake.scan(name).sort("open_time").collect() for name in tables)
        return first, second


def truth_of(trades: Path, length: timedelta) -> dict[timedelta, dict[datetime, Truth]]:
    """Return what was traded by second and by minute of the time recorded."""
    sums: dict[timedelta, dict[datetime, Truth]] = {}
    for step in (SECOND, MINUTE):
        sums[step] = defaultdict(Truth)
    for ts, price, size in pl.read_parquet(trades).iter_rows():
        at = datetime.fromtimestamp(ts // 1_000_000, UTC)
        if BEGIN <= at < BEGIN + length:
            for step, found in sums.items():
                truth = found[at - (at - BEGIN) % step]
                truth.prices.append(price)
                truth.volume += Decimal(repr(size))
    return sums


def compare(
    kind: str,
    seconds: pl.DataFrame,
    minutes: pl.DataFrame,
    truth: dict[timedelta, dict[datetime, Truth]],
) -> list[Line]:
    """Return the figures of one kind: minutes wholly seen, their seconds, and all of it."""
    whole = {
        row["open_time"] for row in minutes.to_dicts() if row["covered_seconds"] == MINUTE.seconds
    }
    # The counter before the first of them is not always known.
    whole -= {min(whole)}
    lines: list[Line] = []
    for name, step, bars in (("1s", SECOND, seconds), ("1m", MINUTE, minutes)):
        rows = {row["open_time"]: row for row in bars.to_dicts()}
        wanted = {at: t for at, t in truth[step].items() if at - (at - BEGIN) % MINUTE in whole}
        lines += _prices(f"{kind} {name}", rows, wanted)
        lines += _volumes(f"{kind} {name}", rows, wanted)
    everything = [truth[MINUTE][at].volume for at in whole]
    booked = [r["volume"] for r in minutes.to_dicts() if r["open_time"] in whole]
    known = sum((Decimal(repr(v)) for v in booked if v is not None), Decimal(0))
    off = abs(known - sum(everything, Decimal(0))) / sum(everything, Decimal(0))
    lines.append(Line(f"{kind} total, error of volume", float(off) * 100, _bound(kind), "%"))
    negative = sum(v is not None and v < 0 for v in [*minutes["volume"], *seconds["volume"]])
    lines.append(Line(f"{kind}, negative volumes", negative, 0))
    return lines


def _bound(kind: str) -> float:
    """Return the promised error of the total, in percent.

    A session's trades at the first and last instant may be told in the neighboring minute; a
    rolling counter adds what left its window at both ends.
    """
    return 0.5 if kind == "session" else 2.0


def _prices(what: str, rows: dict[datetime, dict], wanted: dict[datetime, Truth]) -> Iterator[Line]:
    seen = [at for at in wanted if at in rows]
    yield Line(f"{what}, traded intervals with a bar", 100 * len(seen) / len(wanted), unit="%")
    for name in PRICES:
        equal = sum(rows[at][name] == wanted[at].price(name) for at in seen)
        yield Line(f"{what}, {name} equal", 100 * equal / len(seen), unit="%")


def _volumes(
    what: str, rows: dict[datetime, dict], wanted: dict[datetime, Truth]
) -> Iterator[Line]:
    """Yield for each basis the share of intervals and the error, absolute, of the volume."""
    by_basis: defaultdict[str, list[datetime]] = defaultdict(list)
    for at in wanted.keys() & rows.keys():
        by_basis[rows[at]["volume_basis"]].append(at)
    for basis, times in sorted(by_basis.items()):
        yield Line(f"{what}, basis {basis}", 100 * len(times) / len(wanted), unit="%")
        if all(rows[at]["volume"] is None for at in times):
            continue
        off = sum(abs(Decimal(repr(rows[at]["volume"])) - wanted[at].volume) for at in times)
        all_of_it = sum(wanted[at].volume for at in times)
        yield Line(f"{what}, {basis}: absolute error", float(off / all_of_it) * 100, unit="%")
