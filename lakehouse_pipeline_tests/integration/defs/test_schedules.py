"""What the clock asks for: when, for which partitions, and why not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from lakehouse_pipeline.defs.partitions import RANGE_END, RANGE_START, range_tags
from lakehouse_pipeline.ingest.heartbeat import WorkerStatus, write_status

NOON = datetime(2026, 1, 5, 12, 34, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path):
    """On disk: a schedule's context wants an instance that others could open."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def evaluate(defs, instance):
    def ask(job: str, at: datetime = NOON) -> list[dg.RunRequest] | dg.SkipReason:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        return defs.resolve_schedule_def(f"{job}_schedule")(context)

    return ask


@pytest.fixture
def committed(settings):
    for exchange in ("BINANCE", "OKX"):
        status = WorkerStatus.begin(exchange, f"w {exchange}", f"r {exchange}")
        status.last_commit_at = datetime.now(UTC)
        write_status(settings.resolved().state_dir, status)


def bounds(request: dg.RunRequest) -> tuple[str, str]:
    prefix = "dagster/asset_partition_range"
    return request.tags[f"{prefix}_start"], request.tags[f"{prefix}_end"]


@pytest.mark.usefixtures("committed")
def test_a_tick_is_one_run_of_all_exchanges_today(evaluate):
    (asked,) = evaluate("build_today")

    assert bounds(asked) == ("2026-01-05|BINANCE", "2026-01-05|OKX")
    assert asked.run_key == "2026-01-05T12:34"
    assert asked.run_config["ops"]["market__bars_1s"]["config"]["scope"] == "NEW"


@pytest.mark.usefixtures("committed")
def test_a_tick_after_midnight_takes_yesterdays_end_along(evaluate):
    (asked,) = evaluate("build_today", datetime(2026, 1, 6, 0, 3, tzinfo=UTC))

    assert bounds(asked) == ("2026-01-05|BINANCE", "2026-01-06|OKX")


@pytest.mark.usefixtures("committed")
def test_a_tick_is_skipped_while_one_runs(evaluate, defs, instance):
    run = instance.create_run_for_job(defs.resolve_job_def("build_today"))

    said = evaluate("build_today").skip_message
    assert said == f"Run {run.run_id[:8]} of build_today is not finished yet."


def test_a_tick_is_skipped_before_anything_was_committed(evaluate):
    assert evaluate("build_today").skip_message == "No worker has committed yet."


@pytest.mark.usefixtures("committed")
def test_a_tick_is_skipped_if_nothing_was_committed_since_the_last(evaluate, recorded, run):
    recorded(minutes=1)
    done = run("build_today", tags=range_tags(NOON.date(), NOON.date(), ["BINANCE", "OKX"]))

    said = evaluate("build_today").skip_message
    assert said == f"Nothing was committed since run {done.run_id[:8]}."


@pytest.fixture
def ended(defs, instance):
    """``ended("FAILURE", "OKX")``: a tick of those exchanges, and how Dagster says it stands."""

    def create(status: str, *exchanges: str) -> dg.DagsterRun:
        return instance.create_run_for_job(
            defs.resolve_job_def("build_today"),
            tags=range_tags(NOON.date(), NOON.date(), exchanges),
            status=dg.DagsterRunStatus[status],
        )

    return create


@pytest.mark.usefixtures("committed")
def test_after_a_failure_each_exchange_has_its_own_run(evaluate, ended):
    ended("FAILURE", "BINANCE", "OKX")

    asked = evaluate("build_today")

    assert [(bounds(request), request.run_key) for request in asked] == [
        (("2026-01-05|BINANCE", "2026-01-05|BINANCE"), "2026-01-05T12:34 BINANCE"),
        (("2026-01-05|OKX", "2026-01-05|OKX"), "2026-01-05T12:34 OKX"),
    ]


@pytest.mark.usefixtures("committed")
def test_exchanges_share_a_run_again_once_each_has_succeeded(evaluate, ended):
    ended("FAILURE", "BINANCE", "OKX")
    ended("SUCCESS", "BINANCE")
    ended("FAILURE", "OKX")
    assert len(evaluate("repair")) == 1  # another job's failures are its own
    assert len(evaluate("build_today")) == 2

    ended("SUCCESS", "OKX")

    (asked,) = evaluate("build_today")
    assert bounds(asked) == ("2026-01-05|BINANCE", "2026-01-05|OKX")


@pytest.mark.usefixtures("committed")
def test_an_exchange_whose_run_hangs_holds_up_no_other(evaluate, ended):
    ended("FAILURE", "BINANCE", "OKX")
    ended("STARTED", "OKX")

    (asked,) = evaluate("build_today")

    assert bounds(asked) == ("2026-01-05|BINANCE", "2026-01-05|BINANCE")


def test_an_exchange_without_commits_is_left_out_when_apart(evaluate, ended, settings):
    ended("FAILURE", "BINANCE", "OKX")
    status = WorkerStatus.begin("OKX", "w", "r")
    status.last_commit_at = datetime.now(UTC)
    write_status(settings.resolved().state_dir, status)

    (asked,) = evaluate("build_today")

    assert bounds(asked) == ("2026-01-05|OKX", "2026-01-05|OKX")


def test_maintenance_waits_for_its_own_run_and_goes_on_after_a_failure(evaluate, instance, defs):
    job = defs.resolve_job_def("seal_and_compact")
    tables = {RANGE_START: "raw.quotes", RANGE_END: "market.symbols"}
    instance.create_run_for_job(job, tags=tables, status=dg.DagsterRunStatus.FAILURE)
    (asked,) = evaluate("seal_and_compact")
    assert dict(asked.tags).items() >= tables.items()

    run = instance.create_run_for_job(job, tags=tables)

    said = evaluate("seal_and_compact").skip_message
    assert said == f"Run {run.run_id[:8]} of seal_and_compact is not finished yet."


@pytest.mark.usefixtures("committed")
def test_a_damaged_exchange_leaves_the_others_their_bars(evaluate, run, recorded, lake):
    script = recorded()
    okx = {"exchange": pl.lit("OKX"), "writer_id": pl.lit("okx")}
    lake.append("raw.coverage", script.coverage.with_columns(**okx))
    lake.append("raw.quotes", script.quotes.with_columns(**okx, symbol=pl.lit("OKX:BTCUSDT")))
    newest = lake.files("raw.quotes").sort("sequence").row(-1, named=True)
    Path(newest["path"]).unlink()
    (together,) = evaluate("build_today")
    assert not run("build_today", tags=dict(together.tags)).success

    results = {
        request.run_key[-3:]: run("build_today", tags=dict(request.tags)).success
        for request in evaluate("build_today")
    }

    assert results == {"NCE": True, "OKX": False}
    assert lake.scan("market.bars_1m").collect()["symbol"].unique().to_list() == ["BINANCE:BTCUSDT"]


def test_the_days_that_end_are_finalized_and_those_judged_too_early(evaluate):
    (asked,) = evaluate("finalize_yesterday", datetime(2026, 1, 6, 0, 20, tzinfo=UTC))

    assert bounds(asked) == ("2026-01-02|BINANCE", "2026-01-05|OKX")


@pytest.mark.usefixtures("committed")
def test_while_the_stack_stops_no_schedule_starts_a_run(evaluate, settings, defs):
    (settings.resolved().state_dir / "draining").touch()

    said = [evaluate(schedule.job_name).skip_message for schedule in defs.schedules]
    assert set(said) == {"The stack is stopping."}


def test_every_schedule_is_on_in_utc_and_bounded_in_time(defs):
    for schedule in defs.schedules:
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "UTC"
        assert int(defs.resolve_job_def(schedule.job_name).tags["dagster/max_runtime"]) <= 7200
