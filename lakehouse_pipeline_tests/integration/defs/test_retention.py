"""What is forgotten of a tick: all of it, but never before its day stands without it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from lakehouse_pipeline.defs.jobs import BUILD_TODAY, FINALIZE_YESTERDAY, TICK_CONFIG
from lakehouse_pipeline.defs.partitions import range_tags
from lakehouse_pipeline.defs.retention import KEPT, forgettable

from .conftest import START

DAY = START.date()
ALL = ["BINANCE", "OKX"]
BARS_1M = dg.AssetKey(["market", "bars_1m"])


@pytest.fixture
def forgotten(instance):
    def ask(*, later: timedelta = KEPT) -> list[str]:
        now = datetime.now(UTC) + later
        return list(forgettable(instance, BUILD_TODAY, FINALIZE_YESTERDAY, now=now))

    return ask


@pytest.fixture
def tick(recorded, run):
    recorded(minutes=1)
    return run(BUILD_TODAY, tags=range_tags(DAY, DAY, ALL), run_config=TICK_CONFIG).run_id


def test_a_tick_stays_until_its_day_is_finalized(tick, run, forgotten):
    before = forgotten()
    run(FINALIZE_YESTERDAY, tags=range_tags(DAY, DAY, ALL))

    assert before == []
    assert forgotten() == [tick]


@pytest.mark.usefixtures("tick")
def test_a_tick_stays_for_a_day(run, forgotten):
    run(FINALIZE_YESTERDAY, tags=range_tags(DAY, DAY, ALL))

    assert forgotten(later=timedelta(0)) == []


@pytest.mark.usefixtures("tick")
def test_finalizing_one_exchange_is_not_finalizing_all(run, forgotten):
    run(FINALIZE_YESTERDAY, tags=range_tags(DAY, DAY, ["BINANCE"]))

    assert forgotten() == []


@pytest.mark.usefixtures("tick")
def test_what_is_left_still_says_that_the_partition_was_built(run, instance, forgotten):
    finalized = run(FINALIZE_YESTERDAY, tags=range_tags(DAY, DAY, ALL)).run_id

    for run_id in forgotten():
        instance.delete_run(run_id)

    left = instance.get_latest_materialization_event(BARS_1M)
    assert left.run_id == finalized
    assert instance.get_materialized_partitions(BARS_1M) == {f"{DAY}|{name}" for name in ALL}
