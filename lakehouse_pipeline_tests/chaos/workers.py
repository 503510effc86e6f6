"""Workers that are killed, and what must be true of the lake afterward.

Shared by the tests of named crash points and by the long programme of random kills. The killed
process is ``crashing_worker``; what its spool has acknowledged it writes to a ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.feedserver.world import Sent
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import covered_windows
from lakehouse_pipeline.settings import (
    ClockSettings,
    ExchangeSettings,
    FeedSettings,
    IngestSettings,
    Settings,
)
from lakehouse_pipeline.telemetry import configure_logging
from lakehouse_pipeline_tests.chaos.laws import Law, all_met, as_table

SCRIPT = Path(__file__).with_name("crashing_worker.py")
EXCHANGES = ("BINANCE", "OKX", "BYBIT")
TICKERS = ("BTCUSDT", "ETHUSDT")
SPEED = 20.0
EDGE = timedelta(seconds=3)  # of feed time: clocks anchored by a hello agree no better
LONGEST = 120.0  # seconds a worker may take for what is asked of it

Identity = tuple[str, int]  # writer and sequence


@dataclass
class Victim:
    """One exchange's workers, one after the other, over one state folder."""

    settings: Settings
    exchange: str
    ledger: Path
    kills: int = 0
    moments: list[str] = field(default_factory=list)

    async def start(self, point: str = "never", **ingest: object) -> asyncio.subprocess.Process:
        settings = self.settings
        if ingest:
            changed = settings.ingest.model_copy(update=ingest)
            settings = settings.model_copy(update={"ingest": changed})
        with self.log.open("a") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                str(SCRIPT),
                settings.model_dump_json(),
                str(self.ledger),
                point,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    @property
    def log(self) -> Path:
        return self.ledger.with_suffix(".log")

    def acknowledged(self) -> dict[Identity, tuple[float, float]]:
        """Return price and volume of the quotes the spool has acknowledged to any worker."""
        if not self.ledger.exists():
            return {}
        return {
            (writer_id, sequence): (price, volume)
            for line in self.ledger.read_text().splitlines()
            if line.endswith("]")  # a worker killed while writing leaves half a line
            for writer_id, quotes in [json.loads(line)]
            for sequence, price, volume in quotes
        }

    async def finish(self) -> bytes:
        """Let one more worker drain what the others left.

        Interrupted by two signals at once, and by another during its flush, it still flushes.
        """
        before = len(self.acknowledged())
        started = self.log.stat().st_size if self.log.exists() else 0
        process = await self.start()
        await until(lambda: len(self.acknowledged()) > before)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        await until(lambda: "worker_interrupted" in self.log.read_text()[started:])
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
        return output


async def until(predicate: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONGEST
    while not predicate():
        assert time.monotonic() < deadline, "a worker did not get there in time"
        await asyncio.sleep(0.02)


def victim(folder: Path, url: str, exchange: str, **ingest: object) -> Victim:
    settings = Settings(
        state_dir=folder,
        config=folder / "exchanges.yaml",
        feed=FeedSettings(
            url=url,
            connect_interval=timedelta(0),
            connect_timeout=timedelta(seconds=20),
            silence_timeout=timedelta(seconds=20 * SPEED),
        ),
        clock=ClockSettings(source="feed", speed=SPEED),
        ingest=IngestSettings.model_validate(
            {"commit_interval": "PT0.4S", "group_commit": "PT0.05S", **ingest}
        ),
        exchanges={exchange: ExchangeSettings(symbols=list(TICKERS))},
    )
    return Victim(settings, exchange, folder / f"{exchange}.jsonl")


@dataclass(frozen=True)
class Verdict:
    """What became of one exchange's rows."""

    exchange: str
    kills: int
    sessions: int
    acknowledged: int
    landed: int
    lost: int
    altered: int
    repeated: int
    packets: int  # sent while coverage claims the second
    hidden: int  # of these, not landed
    unended: int  # sessions whose end nobody recorded

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.altered or self.repeated or self.hidden or self.unended)


def judge(one: Victim, sent: Sequence[Sent]) -> Verdict:
    """Compare the lake with the spool's word and with the feed server's."""
    with Lakehouse.open(one.settings) as lake:
        quotes = lake.scan("raw.quotes", exchange=one.exchange).collect()
        coverage = lake.scan("raw.coverage", exchange=one.exchange).collect()
    identities = quotes.select("writer_id", "sequence").rows()
    rows = dict(
        zip(identities, quotes.select("last_price", "cumulative_volume").rows(), strict=True)
    )
    promised = one.acknowledged()
    # A counter never stands twice at one value, so its value tells which packet a row was.
    landed = set(quotes.select("symbol", "cumulative_volume").rows())
    seen = _claimed(coverage, sent)
    opened = set(coverage.filter(kind="opened")["session_id"])
    ended = coverage.filter(kind="ended")["session_id"].to_list()
    return Verdict(
        exchange=one.exchange,
        kills=one.kills,
        sessions=len(opened),
        acknowledged=len(promised),
        landed=len(rows),
        lost=len(promised.keys() - rows.keys()),
        altered=sum(rows[key] != promised[key] for key in promised.keys() & rows.keys()),
        repeated=len(identities) - len(rows),
        packets=len(seen),
        hidden=sum(packet not in landed for packet in seen),
        unended=len(opened ^ set(ended)) + len(ended) - len(set(ended)),
    )


def _claimed(coverage: pl.DataFrame, sent: Sequence[Sent]) -> list[tuple[str, float]]:
    """Return symbol and counter of the packets that coverage claims to have seen."""
    windows = covered_windows(coverage)
    return [
        (packet.name, packet.values["volume"])
        for packet in sent
        if "volume" in packet.values
        and any(
            window.start + EDGE <= packet.at < window.end - EDGE
            for window in windows.get(packet.name, [])
        )
    ]


async def kill_at_random(one: Victim, chance: random.Random, kills: int) -> None:
    """Start workers and kill them: while starting, while draining, while recording."""
    for _ in range(kills):
        rows = len(one.acknowledged())
        beats = _beats(one)
        process = await one.start()
        began = time.monotonic()
        moment = chance.choice(("starting", "recovering", "recording", "recording"))
        if moment == "recovering":
            await until(lambda before=beats: _beats(one) > before)
        elif moment == "recording":
            more = chance.randrange(1, 150)
            await until(lambda at=rows + more: len(one.acknowledged()) >= at)
        else:
            await asyncio.sleep(chance.uniform(0.5, 3.0))
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        await process.communicate()
        one.kills += 1
        one.moments.append(f"{moment} {time.monotonic() - began:.2f} s")
    assert (await one.finish()).endswith(b"FLUSHED\n")


def _beats(one: Victim) -> int:
    """How often workers said that they have started."""
    return one.log.read_text().count("worker_started") if one.log.exists() else 0


async def programme(
    folder: Path, *, kills: int, seed: int, exchanges: Sequence[str] = EXCHANGES
) -> list[Verdict]:
    """Kill workers of *exchanges* side by side, *kills* times in all."""
    symbols = [f"{exchange}:{ticker}" for exchange in exchanges for ticker in TICKERS]
    async with FeedServer(generated_market(symbols, pace=20), speed=SPEED) as server:
        victims = [victim(folder, server.url, exchange) for exchange in exchanges]
        share = -(-kills // len(victims))
        async with asyncio.TaskGroup() as group:
            for number, one in enumerate(victims):
                group.create_task(kill_at_random(one, random.Random(seed + number), share))
        sent = [packet for packet in server.sent if "lp" in packet.values]
    return [judge(one, sent) for one in victims]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=201)
    parser.add_argument("--seed", type=int, default=20_261_122)
    options = parser.parse_args(arguments)
    configure_logging(logging.WARNING)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        verdicts = asyncio.run(programme(Path(folder), kills=options.kills, seed=options.seed))
    table = Table(title=f"kill -9 of workers, seed {options.seed}")
    names = [one.name for one in dataclasses.fields(Verdict)]
    for name in names:
        table.add_column(name, justify="left" if name == "exchange" else "right")
    for verdict in verdicts:
        table.add_row(*(str(getattr(verdict, name)) for name in names))
    console = Console(width=120)
    console.print(table)
    found = laws(verdicts)
    sys.stdout.write("\n".join(as_table(found)) + "\n")
    sys.stdout.write(f"{(time.monotonic() - began) / 60:.1f} minutes\n")
    return 0 if all_met(found) else 1


def laws(verdicts: Sequence[Verdict]) -> list[Law]:
    """Return each law over all exchanges together."""

    def total(name: str) -> int:
        return sum(getattr(verdict, name) for verdict in verdicts)

    return [
        Law("acknowledged rows lost", total("acknowledged"), total("lost")),
        Law("acknowledged rows landed with other values", total("acknowledged"), total("altered")),
        Law("rows landed twice", total("landed"), total("repeated")),
        Law("packets missing in what coverage calls seen", total("packets"), total("hidden")),
        Law("sessions without one end", total("sessions"), total("unended")),
    ]


if __name__ == "__main__":
    sys.exit(main())
