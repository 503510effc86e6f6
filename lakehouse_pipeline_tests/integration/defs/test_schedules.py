"""What the clock asks for: when, for which partitions, and why not."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus, write_status

NOON = datetime(2026, 1, 5, 12, 34, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path):
    """On disk: a schedule's context wants an instance that others could open."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def evaluate(defs, instance):
    def ask(job: str, at: datetime = NOON) -> dg.RunRequest | dg.SkipReason:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
        return defs.resolve_schedule_def(f"{job}_schedule")(context)

    return ask


@pytest.fixture
def committed(settings):
    status = WorkerStatus.begin("OKX", "w", "r")
    status.last_commit_at = datetime.now(UTC)
    write_status(settings.resolved().state_dir, status)


def bounds(request: dg.RunRequest) -> tuple[str, str]:
    prefix = "dagster/asset_partition_range"
    return request.tags[f"{prefix}_start"], request.tags[f"{prefix}_end"]


@pytest.mark.usefixtures("committed")
def test_a_tick_is_one_run_of_all_exchanges_today(evaluate):
    asked = evaluate("build_today")

    assert bounds(asked) == ("2026-01-05|BINANCE", "2026-01-05|OKX")
    assert asked.run_key == "2026-01-05T12:34"
    assert asked.run_config["ops"]["market__bars_1s"]["config"]["scope"] == "NEW"


@pytest.mark.usefixtures("committed")
def test_a_tick_after_midnight_takes_yesterdays_end_along(evaluate):
    asked = evaluate("build_today", datetime(2026, 1, 6, 0, 3, tzinfo=UTC))

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
    done = run("build_today", partition_key="2026-01-05|BINANCE")

    said = evaluate("build_today").skip_message
    assert said == f"Nothing was committed since run {done.run_id[:8]}."


def test_the_days_that_end_are_finalized_and_those_judged_too_early(evaluate):
    asked = evaluate("finalize_yesterday", datetime(2026, 1, 6, 0, 20, tzinfo=UTC))

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
