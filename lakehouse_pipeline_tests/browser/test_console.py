"""The operations console as an operator sees it: lineage, a partition, its check, the streams."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline_tests.e2e.conftest import EXCHANGES

from .conftest import yesterday

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

GROUPS = {
    "raw": ("quotes", "coverage", "rejects", "fetches", "indicators"),
    "market": ("bars_1s", "bars_1m", "history_1m", "indicators_1m", "symbols"),
    "quality": ("gaps", "reconciliation"),
    "maintenance": ("sealed_files", "clean_folders"),
}


def partition_of(day: date) -> str:
    return f"partition={day}%7CBINANCE"


def test_the_lineage_page_shows_all_groups_and_no_error(deployment, visit):
    expanded = "%2C".join(f"global%40global%3A{group}" for group in GROUPS)

    visit.open(f"{deployment.console.url}/asset-groups?expanded={expanded}")

    assets = [name for names in GROUPS.values() for name in names]
    said = visit.settled(*GROUPS, *assets)
    visit.picture("lineage")
    assert "error" not in said.lower()


def test_a_partition_shows_its_rows_and_draws_its_candles(deployment, visit):
    day = yesterday()
    with deployment.lake() as lake:
        window = TimeWindow.of_day(day)
        rows = lake.scan("market.bars_1m", exchange="BINANCE", window=window).collect().height
    assert rows

    visit.open(
        f"{deployment.console.url}/assets/market/bars_1m?view=partitions&{partition_of(day)}"
    )

    said = visit.settled(f"{day}|BINANCE", "Latest materialization", "snapshot_id", "candles")
    visit.picture("partition")
    facts = [line.strip() for line in said.splitlines() if line.strip()]
    assert facts[facts.index("rows") + 1].replace(",", "") == str(rows)
    assert f"to {day + timedelta(days=1)} 00:00:00 UTC" in said
    visit.page.get_by_text("[Show Markdown]").first.click()
    drawing = visit.page.get_by_role("img", name="candles of BINANCE")
    drawing.wait_for()
    visit.picture("candles")
    # An image the browser could not draw has no size of its own.
    assert drawing.evaluate("image => image.complete && image.naturalWidth") > 0


def test_a_partition_shows_that_its_check_passed(deployment, visit):
    day = datetime.now(UTC).date()  # its minutes are of quotes, the day before of official bars

    visit.open(
        f"{deployment.console.url}/assets/market/bars_1m?view=checks&checkDetail=bars_match_quotes"
    )
    visit.settled("bars_match_quotes", "Latest execution")
    visit.page.get_by_role("tab", name="Partitions").last.click()
    visit.page.get_by_text(str(day), exact=True).nth(1).click()  # the first ends the range above
    visit.page.get_by_text("BINANCE", exact=True).first.click()

    said = visit.settled(f"{day}|BINANCE", "Passed", "bars_examined", "offenders")
    visit.picture("check")
    facts = said.split()
    assert int(facts[facts.index("bars_examined") + 1]) > 0
    assert facts[facts.index("offenders") + 1] == "0"
    assert "Failed (0)" in said


def test_the_sensor_page_shows_running_streams(deployment, visit):
    visit.open(f"{deployment.console.url}/automation")
    visit.settled("lakehouse", "build_today", *(f"supervise_{name.lower()}" for name in EXCHANGES))
    visit.picture("automation")

    for exchange in EXCHANGES:
        sensor = f"supervise_{exchange.lower()}"
        visit.open(f"{deployment.console.url}/locations/lakehouse/sensors/{sensor}?view=runs")
        said = visit.settled(sensor, "stream_quotes", f"exchange: {exchange}")
        visit.picture(f"streams_{exchange.lower()}")
        assert "Running" in said
        assert "Started" in said
