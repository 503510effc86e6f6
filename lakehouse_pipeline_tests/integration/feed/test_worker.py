"""The worker over real websockets into a real lake."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
import structlog

from lakehouse_pipeline.errors import Banned, SettingsError, StateDirectoryError
from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.generated import generated_market
from lakehouse_pipeline.feedserver.server import FeedServer
from lakehouse_pipeline.ingest import desired
from lakehouse_pipeline.ingest.committer import Committer
from lakehouse_pipeline.ingest.heartbeat import WorkerStatus, write_status
from lakehouse_pipeline.ingest.lane import Lane
from lakehouse_pipeline.ingest.rows import mark
from lakehouse_pipeline.ingest.sink import Sink
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.ingest.supervision import Start, Wait, decide, failures, workers
from lakehouse_pipeline.ingest.worker import run_worker, wait_for
from lakehouse_pipeline.interrupts import Interrupts
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.market.coverage import Mark, covered
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.settings import ExchangeSettings, IngestSettings, Settings

BTC, ETH, SOL = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT", "BINANCE:SOLUSDT"
SPEED = 20.0


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture(scope="module")
def market():
    """One market for all tests: its first hour is made once."""
    return generated_market(pace=20)


def ends(coverage: pl.DataFrame) -> list[str]:
    return coverage.filter(kind="ended").sort("start")["reason"].to_list()


def changed_price() -> pl.Expr:
    return pl.col("changed").str.contains("last_price")


def test_every_update_sent_lands_exactly_once(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC, ETH], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 100, timeout=30)
            return worker, server

    worker, server = asyncio.run(scenario())
    quotes = worker.table("raw.quotes")

    assert not quotes.select("writer_id", "sequence").is_duplicated().any()
    for symbol in (BTC, ETH):
        packets = [packet.values for packet in server.sent if packet.name == symbol]
        sent = [values["lp"] for values in packets if "lp" in values]
        landed = quotes.filter(pl.col("symbol") == symbol, changed_price())["last_price"]
        # What was sent while the worker was leaving is not recorded; everything before it is.
        assert landed.to_list() == sent[: len(landed)]
        assert len(landed) > 20
        (told,) = worker.table("raw.coverage").filter(kind="described", symbol=symbol)["detail"]
        facts = json.loads(told)
        first = packets[0]
        for key in ("pricescale", "minmov", "currency_code", "type", "typespecs", "update_mode"):
            assert facts[key] == first[key]


def test_a_cut_connection_is_one_outage_and_everything_comes_back(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC, ETH], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.status.quotes > 30, timeout=30)
                cut_at = server.now()
                server.drop_clients()
                await eventually(lambda: worker.status.sessions == 2)
                before = worker.status.quotes
                await eventually(lambda: worker.status.quotes > before + 60, timeout=30)
            return worker, cut_at, server.now()

    worker, cut_at, end = asyncio.run(scenario())
    coverage, quotes = worker.table("raw.coverage"), worker.table("raw.quotes")

    assert ends(coverage) == ["closed", "stopped"]
    for symbol in (BTC, ETH):
        before, after = covered(
            coverage, symbol, TimeWindow(cut_at - seconds(600), end + seconds(600))
        )
        # The cut is inside the outage, which begins at most a heartbeat and the lateness early.
        assert cut_at - seconds(15) <= before.end <= cut_at < after.start
        first_after = quotes.filter(
            pl.col("symbol") == symbol, pl.col("received_at") >= after.start
        ).sort("sequence")
        assert first_after["kind"][0] == "restore"


def test_a_half_open_connection_is_noticed_and_replaced(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        silence = faults.Silence(at=seconds(30))
        async with FeedServer(market, speed=SPEED, faults=[silence]) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED, silence=seconds(25))
            async with run(settings) as worker:
                await eventually(lambda: worker.status.sessions == 2, timeout=30)
                before = worker.status.quotes
                await eventually(lambda: worker.status.quotes > before + 10, timeout=30)
            return worker

    coverage = asyncio.run(scenario()).table("raw.coverage")

    assert ends(coverage)[0] == "silent"


def test_a_frozen_symbol_is_marked_stalled_without_a_reconnect(
    tmp_path: Path, market, make_settings, run, eventually
):
    frozen = faults.Frozen(symbols=[ETH], at=seconds(440))

    async def scenario():
        async with FeedServer(market, speed=2 * SPEED, faults=[frozen]) as server:
            settings = make_settings(tmp_path, server.url, [BTC, ETH], speed=2 * SPEED)
            async with run(settings) as worker:
                await eventually(
                    lambda: not worker.table("raw.coverage").filter(kind="stalled").is_empty(),
                    timeout=40,
                )
            return worker, server

    worker, server = asyncio.run(scenario())
    coverage = worker.table("raw.coverage")

    (stalled,) = coverage.filter(kind="stalled").iter_rows(named=True)
    assert stalled["symbol"] == ETH
    assert stalled["end"] - stalled["start"] > seconds(60)
    assert coverage.filter(kind="opened").height == 1
    assert [packet.name for packet in server.sent if "description" in packet.values].count(ETH) == 2


def test_symbols_follow_the_file_without_a_restart(
    tmp_path: Path, market, make_settings, run, eventually, monkeypatch
):
    monkeypatch.setattr(desired, "LOOK_EVERY", timedelta(0))

    def landed(worker, symbol: str) -> int:
        return worker.table("raw.quotes").filter(symbol=symbol).height

    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC, ETH], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 10, timeout=30)
                settings.config.write_text("exchanges: {BINANCE: {symbols: [not a ticker]}}\n")
                settings.config.write_text("exchanges: {BINANCE: {symbols: [BTCUSDT, SOLUSDT]}}\n")
                await eventually(lambda: landed(worker, SOL) > 5, timeout=30)
            return worker

    worker = asyncio.run(scenario())
    coverage, quotes = worker.table("raw.coverage"), worker.table("raw.quotes")

    (gone,) = coverage.filter(kind="unsubscribed").iter_rows(named=True)
    assert gone["symbol"] == ETH
    assert quotes.filter(pl.col("symbol") == ETH)["received_at"].max() <= gone["start"]
    assert coverage.filter(kind="opened").height == 1


def test_an_unknown_symbol_is_refused_and_the_others_are_recorded(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC, "BINANCE:NOPE"], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 10, timeout=30)
            return worker

    worker = asyncio.run(scenario())

    (refused,) = worker.table("raw.coverage").filter(kind="refused").iter_rows(named=True)
    assert (refused["symbol"], refused["reason"]) == ("BINANCE:NOPE", "no_such_symbol")
    assert worker.table("raw.rejects")["symbol"].to_list() == ["BINANCE:NOPE"]


def test_garbage_and_wrong_lengths_are_kept_as_rejects_and_the_session_goes_on(
    tmp_path: Path, market, make_settings, run, eventually
):
    troubles = [
        faults.Garbage(share=0.2),
        faults.WrongLength(share=0.1),
        faults.Unknown(share=0.1),
    ]

    async def scenario():
        async with FeedServer(market, speed=SPEED, faults=troubles) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.quotes_committed > 50, timeout=30)
            return worker

    worker = asyncio.run(scenario())

    reasons = set(worker.table("raw.rejects")["reason"])
    assert "unknown_message" in reasons
    assert any(reason.startswith("malformed_") for reason in reasons)
    assert ends(worker.table("raw.coverage")) == ["stopped"]


def test_a_lake_that_is_away_stops_nothing_and_gets_everything_later(
    tmp_path: Path, market, make_settings, run, eventually
):
    blocked = tmp_path / "lake-parent"
    blocked.write_text("a file where the warehouse's folder should be")

    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
            settings = settings.model_copy(
                update={
                    "lake": settings.lake.model_copy(
                        update={
                            "catalog_uri": f"sqlite:///{blocked}/catalog.db",
                            "warehouse": f"file://{blocked}/warehouse",
                        }
                    )
                }
            )
            async with run(settings) as worker:
                await eventually(lambda: worker.status.lake_error != "", timeout=30)
                await eventually(lambda: worker.status.pending > 30, timeout=30)
                blocked.unlink()
                blocked.mkdir()
                await eventually(lambda: worker.quotes_committed > 30, timeout=60)
                await eventually(lambda: worker.status.lake_error == "")
            return worker

    worker = asyncio.run(scenario())
    quotes = worker.table("raw.quotes")

    numbers = pl.concat([quotes["sequence"], worker.table("raw.coverage")["sequence"]]).n_unique()
    assert not quotes["sequence"].is_duplicated().any()
    assert numbers > 30
    assert ends(worker.table("raw.coverage")) == ["stopped"]


def test_a_ban_stops_the_worker_and_holds_the_next_one_back(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        async with FeedServer(market, speed=SPEED, faults=[faults.Ban(at=seconds(20))]) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
            with pytest.raises(Banned):
                async with run(settings) as worker:
                    await eventually(lambda: workers(tmp_path, "BINANCE")[0].ended, timeout=30)
            return worker

    worker = asyncio.run(scenario())

    assert ends(worker.table("raw.coverage")) == ["banned"]
    (status,) = workers(tmp_path, "BINANCE")
    decision = decide([], failures(tmp_path, "BINANCE", status.at), status.at)
    assert isinstance(decision, Wait)
    assert "banned" in decision.reason


@pytest.mark.parametrize("refused_with", [403, 429])
def test_a_refused_handshake_is_waited_out_long_and_said(
    tmp_path: Path, market, make_settings, run, eventually, refused_with
):
    async def scenario():
        async with FeedServer(market, faults=[faults.Refuse(status=refused_with)]) as server:
            settings = make_settings(tmp_path, server.url, [BTC])
            async with run(settings) as worker:
                await eventually(lambda: str(refused_with) in worker.status.feed_error)
                return worker.status, server.connections

    status, connections = asyncio.run(scenario())

    assert (status.sessions, connections) == (0, 0)
    decision = decide([], failures(tmp_path, "BINANCE", status.at), status.at)
    assert decision == Start()  # being refused is no failure of the worker


def test_a_spool_at_its_limit_sheds_with_a_coverage_row(
    tmp_path: Path, market, make_settings, run, eventually, monkeypatch
):
    monkeypatch.setattr(Spool, "size_bytes", lambda _: 9 << 30)

    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: worker.status.shed > 20, timeout=30)
            return worker

    worker = asyncio.run(scenario())
    coverage = worker.table("raw.coverage")
    shed = coverage.filter(kind="shed")

    assert worker.table("raw.quotes").is_empty()
    assert shed["detail"].cast(pl.Int64).sum() > 20
    alive = coverage.filter(kind="alive")
    window = TimeWindow(alive["start"].min(), alive["end"].max())
    assert sum((part.length for part in covered(coverage, BTC, window)), timedelta(0)) < seconds(2)


def test_an_expired_worker_leaves_when_its_successor_records(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(
                tmp_path, server.url, [BTC, ETH], speed=SPEED, ingest={"lease": seconds(1)}
            )
            fresh = settings.model_copy(
                update={"ingest": settings.ingest.model_copy(update={"lease": timedelta(hours=6)})}
            )
            async with run(settings) as first:
                await eventually(lambda: first.status.lease_expired)
                first_status = first.status
                async with run(fresh) as second:
                    await eventually(
                        lambda: {s.writer_id: s.ended for s in workers(tmp_path, "BINANCE")}[
                            first_status.writer_id
                        ],
                        timeout=30,
                    )
                    before = second.status.quotes
                    await eventually(lambda: second.status.quotes > before + 20)
            return second

    worker = asyncio.run(scenario())
    coverage = worker.table("raw.coverage")

    assert ends(coverage) == ["handed_over", "stopped"]
    window = TimeWindow(coverage["start"].min(), coverage["end"].max())
    for symbol in (BTC, ETH):
        assert len(covered(coverage, symbol, window)) == 1


def test_a_successor_without_every_symbol_or_that_fails_takes_nothing_over(
    tmp_path: Path, market, make_settings, run, eventually
):
    half = WorkerStatus.begin("BINANCE", "successor", "r2")

    def beat(**changes: object) -> None:
        half.began += 1
        half.touch()
        write_status(tmp_path, msgspec.structs.replace(half, **changes))

    async def scenario(logs):
        def logged(event: str) -> bool:
            return any(entry["event"] == event for entry in logs)

        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(
                tmp_path, server.url, [BTC, ETH], speed=SPEED, ingest={"lease": seconds(1)}
            )
            async with run(settings) as first:
                await eventually(lambda: first.status.receiving == 2, timeout=30)
                beat(receiving=1, quotes=9)
                frames = first.status.frames
                await eventually(lambda: first.status.frames > frames + 40, timeout=30)
                assert not logged("successor_records")
                beat(receiving=2, quotes=9)
                await eventually(lambda: logged("successor_records"), timeout=30)
                beat(receiving=2, quotes=9, ended="crashed")
                await eventually(lambda: logged("successor_lost"), timeout=30)
                frames = first.status.frames
                await eventually(lambda: first.status.frames > frames + 40, timeout=30)
            return first

    with structlog.testing.capture_logs() as logs:
        worker = asyncio.run(scenario(logs))

    assert ends(worker.table("raw.coverage")) == ["stopped"]


def test_a_worker_nobody_succeeds_leaves_at_the_last_moment_and_says_so(
    tmp_path: Path, market, make_settings, run, eventually
):
    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            limits = {"lease": seconds(2), "hand_over": seconds(2)}
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED, ingest=limits)
            async with run(settings) as worker:
                await eventually(lambda: worker.status.ended, timeout=30)
            return worker

    worker = asyncio.run(scenario())

    assert worker.status.ended == "lease_over"
    assert ends(worker.table("raw.coverage")) == ["lease_over"]
    assert (
        decide([], failures(tmp_path, "BINANCE", datetime.now(UTC)), datetime.now(UTC)) == Start()
    )


def test_orphaned_spools_are_drained_and_deleted(
    tmp_path: Path, market, make_settings, run, eventually
):
    folder = tmp_path / "spool" / "BINANCE"
    left = {}
    for number in range(3):
        spool = Spool.create(folder)
        spool.append([mark(f"old-{number}", Mark.OPENED, 10**15, 10**15)])
        left[spool.writer_id] = f"old-{number}"
        spool.close()

    async def scenario():
        async with FeedServer(market, speed=SPEED) as server:
            settings = make_settings(tmp_path, server.url, [BTC], speed=SPEED)
            async with run(settings) as worker:
                await eventually(lambda: len(list(folder.glob("*.sqlite"))) == 1, timeout=30)
            return worker

    coverage = asyncio.run(scenario()).table("raw.coverage")

    old = coverage.filter(pl.col("session_id").str.starts_with("old"))
    crashed = old.filter(kind="ended", reason="crashed")
    assert dict(crashed.select("writer_id", "session_id").rows()) == left
    assert old.filter(kind="opened").height == 3
    with Lakehouse.open(Settings(state_dir=tmp_path)) as lake:
        remembered = set(lake.progress_by("raw.coverage", "writer."))
    # The one that was gone on with keeps its progress; nobody needs that of the drained ones.
    assert len(remembered & set(left)) == 1


def test_a_stop_while_a_drained_spool_is_buried_leaves_nothing_half_done(
    tmp_path: Path, eventually
):
    class SlowToRetire(Sink):
        def retire(self, writer_id: str) -> None:
            assert going_on.wait(30)
            super().retire(writer_id)

    going_on = threading.Event()
    folder = tmp_path / "spool" / "BINANCE"
    own, *orphans = [Spool.create(folder) for _ in range(3)]
    for number, orphan in enumerate(orphans):
        orphan.append([mark(f"old-{number}", Mark.OPENED, 10**15, 10**15)])
    writers = {orphan.writer_id for orphan in orphans}

    async def scenario(lake: Lakehouse) -> None:
        committer = Committer(
            own,
            orphans,
            sink=SlowToRetire(lambda: lake, "BINANCE", max_rows=100),
            lane=Lane("lake"),
            settings=IngestSettings(),
            status=WorkerStatus.begin("BINANCE", own.writer_id, "run"),
            on_commit=None,
        )
        interrupted = asyncio.create_task(committer.commit_all())
        await eventually(lambda: len(list(folder.glob("*.sqlite"))) == 2)
        interrupted.cancel()
        going_on.set()
        await committer.commit_all()

    with Lakehouse.open(Settings(state_dir=tmp_path)) as lake:
        asyncio.run(scenario(lake))
        assert [path.stem for path in folder.glob("*.sqlite")] == [own.writer_id]
        assert not writers & set(lake.progress_by("raw.coverage", "writer."))
        assert lake.scan("raw.coverage").collect().filter(kind="opened").height == 2


def test_an_exchange_that_is_not_configured_is_one_clear_error(tmp_path: Path, make_settings):
    settings = make_settings(tmp_path, "ws://127.0.0.1:1", [BTC])
    settings.exchanges["OKX"] = ExchangeSettings(symbols=["BTCUSDT"])

    with pytest.raises(SettingsError, match="BYBIT"):
        run_worker(settings, "BYBIT")


class Canceled(BaseException):
    """What a handler raises, as Dagster's does."""


@pytest.fixture
def canceling() -> Iterator[None]:
    """A host whose handlers raise, among waits that a library lets go on after a signal."""

    def cancel(*_: object) -> None:
        raise Canceled

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.siginterrupt(signal.SIGINT, False)  # as polars installs its own, whenever it is loaded
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("canceling")
@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGINT, signal.SIGTERM]])
def test_signals_end_the_work_in_order_and_are_then_passed_on(numbers):
    asked, asks = threading.Event(), []
    in_time: list[bool] = []

    def shoot() -> None:
        for number in numbers:  # at once: the second handler runs while the first one's wait ends
            os.kill(os.getpid(), number)

    def ask() -> None:
        asks.append(1)
        shoot()  # and again during the flush
        asked.set()

    with Interrupts() as interrupts:
        threading.Timer(0.2, shoot).start()
        wait_for(lambda: in_time.append(asked.wait(10)), interrupts, ask)

    assert in_time == [True]
    assert asks == [1]
    with pytest.raises(Canceled):
        interrupts.pass_on()


def test_work_that_ends_by_itself_is_not_waited_for():
    with Interrupts() as interrupts:
        wait_for(lambda: None, interrupts, lambda: pytest.fail("nobody interrupted"))

    interrupts.pass_on()


def test_what_fails_before_recording_holds_the_next_start_back(tmp_path: Path, make_settings):
    settings = make_settings(tmp_path, "ws://127.0.0.1:1", [BTC])
    (tmp_path / "spool").write_text("a file where the folder should be")

    for number in range(2):
        with pytest.raises(StateDirectoryError):
            run_worker(settings, "BINANCE", run_id=f"run-{number}")

    now = datetime.now(UTC)
    told = failures(tmp_path, "BINANCE", now)
    assert [failure.run_id for failure in told] == ["run-0", "run-1"]
    decision = decide([], told, now)
    assert isinstance(decision, Wait)
    assert "cannot be" in decision.reason
