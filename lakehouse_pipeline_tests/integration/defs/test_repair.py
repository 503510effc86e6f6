"""The hourly repair: asset, verdict and checks over a real lake and a real feed server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from lakehouse_pipeline.defs.partitions import RANGE_END, RANGE_START, range_tags
from lakehouse_pipeline.feedserver import FeedServer, generated_market
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow

from .conftest import START

DAY = START.date()
TAGS = range_tags(DAY, DAY, ["BINANCE", "OKX"])
BTC = "BINANCE:BTCUSDT"


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A feed whose market has come half an hour beyond the recording."""
    server = FeedServer(generated_market([BTC]), start=START + timedelta(minutes=30))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    monkeypatch.setenv("LAKEHOUSE_FEED__URL", server.url)
    monkeypatch.setenv("LAKEHOUSE_FEED__CONNECT_INTERVAL", "PT0S")
    monkeypatch.setenv("LAKEHOUSE_HISTORY__PACE", "PT0S")
    monkeypatch.setenv("LAKEHOUSE_CLOCK__SOURCE", "feed")
    yield
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def with_gap(recorded, run) -> None:
    """Minutes 0 and 10 to 12 recorded, and what lies between known as a gap."""
    recorded(minutes=1)
    recorded(start=START + 10 * MINUTE, minutes=3, writer="writer-2")
    run("finalize_yesterday", tags=TAGS)
    run("report_gaps", tags=TAGS)


def verdicts(result) -> dict[str, bool]:
    passed: dict[str, bool] = {}
    for check in result.get_asset_check_evaluations():
        passed[check.check_name] = check.passed and passed.get(check.check_name, True)
    return passed


@pytest.mark.usefixtures("feed", "with_gap")
def test_a_gap_is_filled_and_the_loss_budget_says_so(lake, run):
    result = run("repair", tags=TAGS)

    assert result.success
    (gap,) = lake.scan("market.reconciliation").collect().filter(scope="gap").to_dicts()
    assert gap["status"] == "filled"
    assert verdicts(result)["no_open_gaps"]
    assert lake.scan("market.history_1m").collect().height >= 9


@pytest.mark.usefixtures("with_gap")
def test_a_gap_that_nobody_repaired_breaks_its_statement(lake):
    from lakehouse_pipeline.build import reconciliation
    from lakehouse_pipeline.build.bars import current_watermark

    seen = current_watermark(lake, "BINANCE")
    reach = timedelta(minutes=5_000)
    reconciliation.build_reconciliation(lake, "BINANCE", DAY, watermark=seen, reach=reach)

    proof = reconciliation.no_open_gaps(lake, "BINANCE", TimeWindow.of_day(DAY))

    assert proof.offenders["symbol"].to_list() == [BTC]
    assert proof.offenders["status"].to_list() == ["open"]


@pytest.mark.usefixtures("with_gap")
def test_a_feed_that_is_away_fails_the_run_in_words(run, monkeypatch):
    monkeypatch.setenv("LAKEHOUSE_FEED__URL", "ws://127.0.0.1:9")

    result = run("repair", tags=TAGS)

    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data
    assert "BINANCE: The feed could not be reached" in told.description


@pytest.mark.usefixtures("feed", "with_gap")
def test_minutes_that_differ_are_listed_by_the_check(run):
    """What was scripted has nothing to do with the market the official bars come from."""
    result = run("repair", tags=TAGS)

    failed = {c.check_name: c for c in result.get_asset_check_evaluations() if not c.passed}
    assert set(failed) == {"gaps_hold_what_was_missed", "reconciliation_is_within_tolerance"}
    listed = failed["reconciliation_is_within_tolerance"].metadata["first_offenders"].value
    assert "10:11 close" in listed
    short = failed["gaps_hold_what_was_missed"]
    assert short.severity == dg.AssetCheckSeverity.WARN
    assert "volume_residual" in short.metadata["first_offenders"].value


def test_each_hour_all_that_the_feed_still_reaches_is_looked_through(defs, tmp_path):
    at = START + timedelta(minutes=17)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        (asked,) = defs.resolve_schedule_def("repair_schedule")(context)

    assert asked.tags[RANGE_START] == "2026-01-01|BINANCE"
    assert asked.tags[RANGE_END] == "2026-01-05|OKX"
