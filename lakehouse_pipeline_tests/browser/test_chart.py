"""`lakehouse chart` in a browser: it draws the bars it was given, from one file, in silence."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def test_the_chart_report_draws_every_candle(deployment, visit, tmp_path):
    file = tmp_path / "chart.html"
    said = deployment.lakehouse("chart", "BINANCE:BTCUSDT", "--last", "6h", "--out", file)
    (bars,) = re.findall(r"(\d+) bars", said)
    requests = []
    visit.page.on("request", lambda request: requests.append(request.url))

    visit.open(file.as_uri())

    visit.settled("BINANCE:BTCUSDT 1m", "price", "volume", "rsi", "macd signal", "UTC")
    visit.picture("chart")
    candles = visit.page.locator("g.boxlayer path.box")
    assert int(bars) > 300, "official minutes of the hours before were fetched"
    assert candles.count() == int(bars)
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
