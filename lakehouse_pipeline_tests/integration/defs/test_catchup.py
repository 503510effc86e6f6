"""Days that fell behind what they are built from are asked for: once, bounded, with a reason."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import pytest

from lakehouse_pipeline.build.freshness import Due
from lakehouse_pipeline.defs.catchup import ask, busy
from lakehouse_pipeline.defs.due import DAYS_A_RUN, look, look_apart, stretches
from lakehouse_pipeline.defs.jobs import FINALIZE_YESTERDAY
from lakehouse_pipeline.defs.partitions import RANGE_END, RANGE_START
from lakehouse_pipeline.errors import EnvironmentFault

from .conftest import START

DAY = timedelta(days=1)
WEEK_LATER = START + 7 * DAY


@pytest.fixture
def asked(settings, lake):
    def evaluate(now=WEEK_LATER + DAY) -> list[dg.RunRequest]:
        found = ask(look(lake, list(settings.exchanges), now=now), today=now.date())
        return [] if isinstance(found, dg.SkipReason) else list(found.run_requests)

    return evaluate


@pytest.fixture
def do(run):
    def execute(request: dg.RunRequest) -> None:
        assert run("catch_up", tags=dict(request.tags)).success

    return execute


def test_a_recorded_day_that_was_never_built_is_asked_for_until_it_is(recorded, asked, do):
    recorded()
    recorded(start=WEEK_LATER, writer="writer-2")  # so that the first day is over

    (request,) = asked()
    assert request.tags[RANGE_START] == request.tags[RANGE_END] == "2026-01-05|BINANCE"
    assert "never built as a whole" in request.tags["lakehouse/because"]
    assert request.run_key == asked()[0].run_key
    do(request)

    assert asked() == []


def test_rows_that_land_late_for_an_old_day_are_built(recorded, asked, do, lake):
    script = recorded()
    recorded(start=WEEK_LATER, writer="writer-2")
    do(asked()[0])
    landed = script.quotes.height
    script.trade(200, 500.0, 1000.5, trade=70)
    lake.append("raw.quotes", script.quotes[landed:])

    (request,) = asked()
    do(request)

    assert request.tags["lakehouse/because"] == (
        "2026-01-05: market.bars_1s is older than raw.quotes"
    )
    highs = lake.scan("market.bars_1m").sort("open_time").collect()["high"].to_list()
    assert highs[:3] == [106.0, 500.0, 106.0]
    assert asked() == []


def test_what_another_way_has_built_is_not_asked_for(recorded, asked, run):
    recorded()
    recorded(start=WEEK_LATER, writer="writer-2")
    tags = dict(asked()[0].tags)

    run(FINALIZE_YESTERDAY, tags=tags)
    run("repair", tags=tags)  # fetches nothing: no feed is reached; gaps are built
    still = [request.tags["lakehouse/because"] for request in asked()]

    assert still in ([], ["2026-01-05: market.reconciliation was never built as a whole"])


def test_a_day_whose_symbols_were_left_behind_is_asked_for(recorded, asked, do, run):
    recorded()
    recorded(start=WEEK_LATER, writer="writer-2")
    names = ("bars_1s", "bars_1m", "gaps", "indicators_1m", "reconciliation")
    others = [dg.AssetKey(["market", name]) for name in names]
    assert run("catch_up", tags=dict(asked()[0].tags), asset_selection=others).success

    (request,) = asked()
    do(request)

    assert request.tags["lakehouse/because"] == (
        "2026-01-05: market.symbols was never built as a whole"
    )
    assert asked() == []


def test_ticks_and_seals_make_no_day_due(recorded, asked, do, run, lake):
    recorded()
    recorded(start=WEEK_LATER, writer="writer-2")
    do(asked()[0])

    from lakehouse_pipeline.build.upkeep import keep_small

    run("build_today", partition_key=f"{WEEK_LATER.date()}|BINANCE")
    for table in ("raw.quotes", "market.bars_1s", "market.bars_1m"):
        keep_small(lake, table, before=WEEK_LATER + DAY)

    assert asked() == []


def test_a_day_that_has_just_ended_is_left_to_the_night(recorded, asked):
    recorded()
    recorded(start=START + DAY, writer="writer-2")
    midnight = (START + DAY).replace(hour=0)

    assert asked(now=midnight + timedelta(minutes=59)) == []
    assert asked(now=midnight + timedelta(minutes=61)) != []


def test_a_look_in_a_process_of_its_own_finds_the_same(recorded, lake, settings):
    recorded()
    recorded(start=WEEK_LATER, writer="writer-2")
    exchanges, now = list(settings.exchanges), WEEK_LATER + DAY

    found = look_apart(exchanges, now=now)

    assert list(found) == ["BINANCE"]
    assert found == look(lake, exchanges, now=now)
    settings.config.write_text("exchanges: nonsense")
    with pytest.raises(EnvironmentFault, match=r"cannot be looked for: .*exchanges"):
        look_apart(exchanges, now=now)


def test_a_look_that_takes_too_long_says_so(settings):
    with pytest.raises(EnvironmentFault, match=r"not found within 0\.05 s"):
        look_apart(list(settings.exchanges), now=WEEK_LATER, patience=0.05)


def test_a_run_that_fails_holds_up_no_other_days():
    days = [date(2026, 1, day) for day in (5, 6, 20)]
    behind = {"OKX": list(stretches(Due(day, "why", 7) for day in days))}

    found = ask(behind, today=date(2026, 2, 1))

    assert isinstance(found, dg.SensorResult)
    keys = [request.run_key for request in found.run_requests]
    assert keys == [
        "OKX 2026-01-05 to 2026-01-06 at 7, 2026-02-01",
        "OKX 2026-01-20 to 2026-01-20 at 7, 2026-02-01",
    ]


def test_a_run_takes_neighboring_days_and_not_too_many():
    days = [date(2026, 1, 12) + later * DAY for later in (*range(10), 16, 18, 19)]
    due = [Due(day, "why", number) for number, day in enumerate(days)]

    found = [(stretch.first.day, stretch.last.day) for stretch in stretches(due)]

    assert found == [(12, 18), (19, 21), (28, 28), (30, 31)]
    assert max(last - first for first, last in found) < DAYS_A_RUN


@pytest.mark.parametrize("job", ["catch_up", FINALIZE_YESTERDAY])
def test_nothing_is_asked_for_while_days_are_being_built(defs, instance, job):
    assert busy(instance) is None
    run = instance.create_run_for_job(defs.resolve_job_def(job))

    assert busy(instance) == f"Run {run.run_id[:8]} of {job} is not finished yet."
