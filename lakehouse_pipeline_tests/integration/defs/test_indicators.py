"""Indicators as an asset: hourly from what changed, with the day, and checked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import dagster as dg
import polars as pl
import pytest

from lakehouse_pipeline.build.indicators import studies_of, tick_indicators
from lakehouse_pipeline.defs.jobs import HOURLY_CONFIG, TICK_CONFIG
from lakehouse_pipeline.defs.partitions import range_tags
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import MINUTE

from .conftest import START

DAY = START.date()
TODAY = range_tags(DAY, DAY, ["BINANCE", "OKX"])
TICK = {"tags": TODAY, "run_config": TICK_CONFIG}
HOURLY = {"tags": TODAY, "run_config": HOURLY_CONFIG}
SYMBOL = "BINANCE:BTCUSDT"


@pytest.fixture(autouse=True)
def _short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_INDICATORS", '{"ema": {"length": 2}, "rsi": {"length": 3}}')


def indicators(lake, source: str = "computed") -> pl.DataFrame:
    found = lake.scan("market.indicators_1m").filter(pl.col("source") == source).collect()
    return found.sort("symbol", "open_time", "name", "plot")


def check_result(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = [
        event
        for event in result.get_asset_check_evaluations()
        if event.check_name == "computed_equals_ingested" and "BINANCE" in event.partition
    ]
    return found


def as_streamed(values: pl.DataFrame, add: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
    """Return *values* as the feed's studies would have sent them, in one session."""
    return (
        values.filter(pl.col("value").is_not_null())
        .with_columns(
            event_time="open_time",
            received_at=pl.col("open_time") + timedelta(seconds=59),
            value=add(pl.col("value")),
            session_id=pl.lit("s1"),
            writer_id=pl.lit("w1"),
            chart_bars=None,
        )
        .with_row_index("sequence", offset=1)
        .select(schemas.RAW_INDICATORS.names())
        .cast(dict(schemas.RAW_INDICATORS))
    )


def test_hourly_runs_give_what_a_rebuild_of_the_day_gives(recorded, lake, run):
    recorded(minutes=4)
    run("build_today", **TICK)
    assert run("report_gaps", **HOURLY).success
    first = indicators(lake)
    recorded(start=START + 4 * MINUTE, minutes=2, writer="writer-2")
    run("build_today", **TICK)

    assert run("report_gaps", **HOURLY).success

    hourly = indicators(lake)
    assert first.height == 4 * 2
    assert hourly.height == 6 * 2
    assert hourly.filter(name="ema", symbol=SYMBOL)["value"].null_count() == 1
    assert run("finalize_yesterday", tags=TODAY).success
    assert hourly.equals(indicators(lake))


def test_an_hourly_run_that_finds_nothing_changes_nothing(recorded, lake, run, settings):
    recorded(minutes=3)
    run("build_today", **TICK)
    run("report_gaps", **HOURLY)
    head = lake.head("market.indicators_1m")

    assert run("report_gaps", **HOURLY).success

    # The gap ledger was written anew; it is empty, so no minute was touched.
    studies = studies_of(settings.indicators)
    assert tick_indicators(lake, "BINANCE", studies, watermark=START + 3 * MINUTE) == []
    assert lake.head("market.indicators_1m") == head


def test_a_late_change_rebuilds_all_that_follows(recorded, lake, run):
    script = recorded(minutes=5)
    run("build_today", **TICK)
    run("report_gaps", **HOURLY)
    before = indicators(lake).filter(name="ema")["value"].to_list()
    landed = script.quotes.height
    script.trade(310, 500.0, 2000.5, trade=119)
    lake.append("raw.quotes", script.quotes[landed:])
    run("build_today", **TICK)

    assert run("report_gaps", **HOURLY).success

    after = indicators(lake).filter(name="ema")["value"].to_list()
    assert after[:1] == before[:1]
    assert all(new > old for new, old in zip(after[1:], before[1:], strict=True))


def test_the_check_says_that_there_was_nothing_to_compare(recorded, run):
    recorded(minutes=3)
    run("build_today", **TICK)

    result = check_result(run("report_gaps", **HOURLY))

    assert result.passed
    assert result.metadata["values_compared"].value == 0
    assert "nothing was compared" in result.description


def test_the_check_fails_on_values_of_another_plot(recorded, lake, run):
    recorded(minutes=60)
    run("build_today", **TICK)
    run("report_gaps", **HOURLY)
    other = as_streamed(indicators(lake).filter(name="ema"), lambda value: value)
    lake.append("raw.indicators", other.with_columns(plot=pl.lit("average")))

    result = check_result(run("report_gaps", **HOURLY))

    assert not result.passed
    assert result.metadata["values_compared"].value == 0
    assert result.metadata["ingested_without_computed"].value == result.metadata["offenders"].value
    assert "ema length=2 average" in result.metadata["worst_deviations"].value


@pytest.mark.parametrize(("off", "passes"), [(0.0, True), (1e-7, True), (1.0, False)])
def test_the_check_lists_the_worst_deviations(recorded, lake, run, off: float, *, passes: bool):
    recorded(minutes=60)
    run("build_today", **TICK)
    run("report_gaps", **HOURLY)
    at_fault = pl.col("open_time") == START + 50 * MINUTE
    lake.append(
        "raw.indicators",
        as_streamed(
            indicators(lake).filter(name="ema"),
            lambda value: pl.when(at_fault).then(value + off).otherwise(value),
        ),
    )

    result = check_result(run("report_gaps", **HOURLY))

    assert result.passed is passes
    assert result.severity is dg.AssetCheckSeverity.WARN
    # 59 minutes have a value; the last is not final, and 34 bars are needed to settle.
    assert 20 < result.metadata["values_compared"].value < 59 - 32
    assert result.metadata["offenders"].value == (0 if passes else 1)
    if off:
        worst = result.metadata["worst_deviations"].value.split("\n\n")[0]
        assert "10:50 ema length=2 ema" in worst
    assert indicators(lake, "tradingview").height == 58
