"""Assets and checks: whatever asks for bars, the same bars come, and the UI is told."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg
import polars as pl
import pytest

from lakehouse_pipeline.defs.jobs import TICK_CONFIG
from lakehouse_pipeline.defs.partitions import Part, range_tags
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow

from .conftest import START

DAY = START.date()
TODAY = range_tags(DAY, DAY, ["BINANCE", "OKX"])
TICK = {"tags": TODAY, "run_config": TICK_CONFIG}
BARS_1M = dg.AssetKey(["market", "bars_1m"])


def bars(lake, table="market.bars_1m") -> pl.DataFrame:
    return lake.scan(table).sort("symbol", "open_time").collect()


def quotes(lake) -> pl.DataFrame:
    return lake.scan("raw.quotes").sort("writer_id", "sequence").collect()


def test_a_tick_builds_what_a_rebuild_of_the_day_builds(recorded, lake, run):
    recorded(minutes=3)

    ticked = run("build_today", **TICK)
    by_tick = bars(lake), bars(lake, "market.bars_1s")
    rebuilt = run("finalize_yesterday", tags=TODAY)

    assert ticked.success
    assert rebuilt.success
    assert by_tick[0]["open_time"].to_list() == [START + n * MINUTE for n in range(3)]
    assert by_tick[0].equals(bars(lake))
    assert by_tick[1].equals(bars(lake, "market.bars_1s"))


def test_a_second_tick_adds_what_came_since_the_first(recorded, lake, run):
    recorded(minutes=2)
    run("build_today", **TICK)
    before = lake.files("market.bars_1m").height
    recorded(start=START + 2 * MINUTE, minutes=2, writer="writer-2")

    assert run("build_today", **TICK).success

    assert bars(lake).height == 4
    assert lake.files("market.bars_1m").height == before + 1


def test_a_late_row_rebuilds_its_minute_alone(recorded, lake, run):
    script = recorded(minutes=3)
    run("build_today", **TICK)
    landed = script.quotes.height
    script.trade(200, 500.0, 1000.5, trade=70)
    lake.append("raw.quotes", script.quotes[landed:])

    assert run("build_today", **TICK).success

    assert bars(lake)["high"].to_list() == [106.0, 500.0, 106.0]


def test_materializations_say_rows_and_window_of_each_partition(recorded, run, instance):
    recorded(minutes=3)

    run("build_today", **TICK)

    key = Part("BINANCE", DAY).key
    event = instance.get_latest_materialization_event(BARS_1M)
    told = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=BARS_1M, asset_partitions=[key]), limit=1
    ).records[0]
    metadata = told.asset_materialization.metadata
    assert event is not None
    assert metadata["rows"].value == 3
    assert metadata["window"].value == "2026-01-05 00:00:00 to 2026-01-05 10:03:00 UTC"
    assert int(metadata["snapshot_id"].value)


def test_an_exchange_never_recorded_is_no_failure(recorded, run):
    recorded(minutes=1)

    assert run("build_today", tags=range_tags(DAY, DAY, ["OKX"]), run_config=TICK_CONFIG).success


def test_a_run_of_several_days_builds_each(recorded, lake, run):
    recorded(minutes=1)
    recorded(start=START + timedelta(days=1), minutes=1, writer="writer-2")

    tags = range_tags(DAY, DAY + timedelta(days=1), ["BINANCE"])
    assert run("finalize_yesterday", tags=tags).success

    assert [time.date() for time in bars(lake)["open_time"]] == [DAY, DAY + timedelta(days=1)]


def test_a_run_limited_to_symbols_leaves_the_others_alone(recorded, lake, run):
    recorded(minutes=1)
    limited = {"config": {"symbols": ["BINANCE:ETHUSDT"]}}

    result = run(
        "finalize_yesterday",
        partition_key=Part("BINANCE", DAY).key,
        run_config={"ops": {"market__bars_1s": limited, "market__bars_1m": limited}},
    )

    assert result.success
    assert bars(lake).is_empty()


def test_checks_pass_on_bars_that_were_built(recorded, run):
    recorded(minutes=3)

    result = run("build_today", **TICK)

    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {name: check.passed for name, check in checks.items()} == {
        "ohlc_is_consistent": True,
        "bars_match_quotes": True,
    }


def test_each_partition_of_a_run_has_a_verdict_of_its_own(recorded, lake, run, instance):
    recorded(minutes=1)
    recorded(start=START + timedelta(days=1), minutes=1, writer="writer-2")
    run("finalize_yesterday", tags=range_tags(DAY, DAY + timedelta(days=1), ["BINANCE"]))
    damage(lake, "market.bars_1m", high=1e6)  # of the first day

    result = run("check_minutes", tags=range_tags(DAY, DAY + timedelta(days=1), ["BINANCE"]))

    assert {check.partition: check.passed for check in result.get_asset_check_evaluations()} == {
        f"{DAY}|BINANCE": False,
        f"{DAY + timedelta(days=1)}|BINANCE": True,
    }
    key = dg.AssetCheckKey(BARS_1M, "bars_match_quotes")
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert all(record.event is not None for record in history), "planned for ever"


def test_a_minute_that_differs_from_its_quotes_fails_its_check(recorded, lake, run):
    recorded(minutes=3)
    run("finalize_yesterday", tags=TODAY)
    damage(lake, "market.bars_1m", high=1e6)

    result = run("check_minutes", tags=TODAY)

    (check,) = [c for c in result.get_asset_check_evaluations() if not c.passed]
    assert check.check_name == "bars_match_quotes"
    assert check.metadata["offenders"].value == 3
    assert "1000000.0" in check.metadata["first_offenders"].value


def test_damaged_seconds_stop_the_minutes_that_would_be_built_of_them(
    recorded, lake, run, monkeypatch
):
    recorded(minutes=3)
    for builder in ("bars", "follow_on"):  # a whole day, and a tick
        monkeypatch.setattr(f"lakehouse_pipeline.build.{builder}.build_bars_1s", damaged_builder())

    result = run("build_today", **TICK)

    assert not result.success
    assert [c.check_name for c in result.get_asset_check_evaluations() if not c.passed] == [
        "ohlc_is_consistent"
    ]
    assert bars(lake).is_empty()


def damage(lake, table: str, **values: float | pl.Expr) -> None:
    from lakehouse_pipeline.lake.slices import Slice

    stored = bars(lake, table).filter(pl.col("open_time").dt.date() == DAY)
    wrong = stored.with_columns(**values)
    lake.overwrite(table, wrong, slice=Slice("BINANCE", TimeWindow.of_day(DAY)))


def test_seconds_that_lost_volume_or_a_price_fail_the_checks_of_their_day(recorded, lake, run):
    recorded(minutes=3)
    run("finalize_yesterday", tags=TODAY)
    whole = run("check_days", tags=TODAY)
    damage(lake, "market.bars_1s", volume=0.5, open=99.0)

    broken = run("check_days", tags=TODAY)

    def failed(result) -> set[str]:
        return {c.check_name for c in result.get_asset_check_evaluations() if not c.passed}

    assert failed(whole) == set()
    assert failed(broken) == {"minutes_equal_direct_ones", "volume_is_conserved"}


@pytest.mark.parametrize(
    ("shift", "why"),
    [(timedelta(seconds=7), "off the grid"), (timedelta(hours=6), "not closed yet")],
)
def test_bars_out_of_their_place_fail_the_check_of_their_day(recorded, lake, run, shift, why):
    recorded(minutes=3)
    run("finalize_yesterday", tags=TODAY)
    damage(lake, "market.bars_1m", open_time=pl.col("open_time") + shift)

    assert why in misplaced(run("check_days", tags=TODAY))


def test_a_bar_stored_twice_fails_the_check_of_its_day(recorded, lake, run):
    from lakehouse_pipeline.lake.slices import Slice

    recorded(minutes=3)
    run("finalize_yesterday", tags=TODAY)
    stored = bars(lake, "market.bars_1s")
    twice = pl.concat([stored, stored.head(1)])
    lake.overwrite("market.bars_1s", twice, slice=Slice("BINANCE", TimeWindow.of_day(DAY)))

    assert "repeated" in misplaced(run("check_days", tags=TODAY))


def misplaced(result) -> str:
    """Return what the check of places shows, having failed."""
    failed = {c.check_name: c for c in result.get_asset_check_evaluations() if not c.passed}
    check = failed["rows_are_in_their_place"]
    return str(check.metadata["first_offenders"].value)


def damaged_builder():
    from lakehouse_pipeline.market.bars import build_bars_1s

    def build(*arguments, **options):
        return build_bars_1s(*arguments, **options).with_columns(low=pl.col("high") + 1)

    return build


def test_gaps_are_reported_for_the_day(recorded, lake, run):
    recorded(minutes=1)
    recorded(start=START + 10 * MINUTE, minutes=1, writer="writer-2")

    assert run("report_gaps", tags=TODAY).success

    assert lake.scan("market.gaps").collect().height >= 1


def test_the_first_and_last_partition_are_todays_neighbours(defs):
    keys = defs.resolve_job_def("build_today").partitions_def.get_partition_keys()

    assert keys[0] == Part("BINANCE", date(2020, 1, 1)).key
    assert keys[-1].endswith("|OKX")
