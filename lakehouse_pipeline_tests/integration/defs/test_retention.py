"""What is forgotten of old runs: all of it, but never the last word on a partition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse_pipeline.defs.assets.catalogue import STREAMED, key
from lakehouse_pipeline.defs.jobs import BUILD_TODAY, FINALIZE_YESTERDAY, TICK_CONFIG
from lakehouse_pipeline.defs.partitions import Part, range_tags
from lakehouse_pipeline.defs.resources import LakehouseResource, SettingsResource
from lakehouse_pipeline.defs.retention import KEPT, forget, forgettable, repeat_streams
from lakehouse_pipeline.market.windows import TimeWindow

from .conftest import START

DAY = START.date()
ALL = ["BINANCE", "OKX"]
BARS_1M = dg.AssetKey(["market", "bars_1m"])


@pytest.fixture
def instance(tmp_path):
    """On disk: what SQLite leaves behind is the point."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


@pytest.fixture
def forgotten(instance):
    def ask(*, later: timedelta = KEPT) -> list[str]:
        now = datetime.now(UTC) + later
        return [run.run_id for run in forgettable(instance, now=now)]

    return ask


@pytest.fixture
def tick(recorded, run):
    recorded(minutes=1)
    return run(BUILD_TODAY, tags=range_tags(DAY, DAY, ALL), run_config=TICK_CONFIG).run_id


def test_a_tick_stays_until_its_day_is_built_again(tick, run, forgotten):
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


def test_what_is_left_still_says_that_the_partition_was_built(tick, run, instance, forgotten):
    finalized = run(FINALIZE_YESTERDAY, tags=range_tags(DAY, DAY, ALL)).run_id
    files = Path(instance.event_log_storage.path_for_shard(tick)).parent

    for run_id in forgotten():
        forget(instance, run_id)

    left = instance.get_latest_materialization_event(BARS_1M)
    assert left.run_id == finalized
    assert instance.get_materialized_partitions(BARS_1M) == {f"{DAY}|{name}" for name in ALL}
    assert {file.name for file in files.glob("*.db")} == {"index.db", f"{finalized}.db"}
    check = dg.AssetCheckKey(BARS_1M, "bars_match_quotes")
    verdicts = instance.event_log_storage.get_asset_check_execution_history(check, limit=99)
    assert {verdict.run_id for verdict in verdicts} == {finalized}


@pytest.mark.usefixtures("tick")
def test_what_a_person_started_is_left_to_that_person(run, forgotten):
    by_hand = run("check_minutes", tags=range_tags(DAY, DAY, ["BINANCE"]))

    assert by_hand.run_id not in forgotten()


@pytest.mark.parametrize("table", STREAMED)
def test_a_streams_last_word_on_a_day_outlives_the_stream(
    recorded, instance, forgotten, settings, table
):
    recorded(minutes=1)
    assert settings
    asset = key(table)
    part = Part("BINANCE", DAY)

    @dg.op
    def land(context) -> None:
        context.log_event(dg.AssetMaterialization(asset, partition=part.key))

    @dg.job(name="stream_quotes")
    def stream() -> None:
        land()

    run_id = stream.execute_in_process(instance=instance).run_id
    before = forgotten()

    lakehouse = LakehouseResource(settings=SettingsResource())
    repeated = [repeat_streams(instance, lakehouse, now=datetime.now(UTC) + KEPT) for _ in range(2)]
    for each in forgotten():
        forget(instance, each)

    assert (before, repeated) == ([], [1, 0])
    assert instance.get_run_by_id(run_id) is None
    said = instance.get_latest_materialization_event(asset).asset_materialization
    with lakehouse.open() as lake:
        stored = lake.scan(table, exchange="BINANCE", window=TimeWindow.of_day(DAY)).collect()
    assert said.partition == f"{DAY}|BINANCE"
    assert said.metadata["rows"].value == stored.height
