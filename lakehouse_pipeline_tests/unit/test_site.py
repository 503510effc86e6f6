"""Whom a token may be shown to after a redirect."""

from __future__ import annotations

import pytest

from lakehouse_pipeline.tradingview.site import may_see_token

FEED = "wss://data.tradingview.com/socket.io/websocket?type=chart"


@pytest.mark.parametrize(
    ("host", "configured"),
    [
        ("data.tradingview.com", FEED),
        ("prodata.tradingview.com", FEED),
        ("data.tradingview.com:8443", FEED),
        ("DATA2.TradingView.com", FEED),
        ("tradingview.com", FEED),
        ("127.0.0.1:9999", "ws://127.0.0.1:8080/x"),
        ("localhost:9999", "ws://localhost:8080/x"),
        ("[::1]:9999", "ws://[::1]:8080/x"),
        ("feed.example.co.uk", "wss://feed.example.co.uk/"),
        ("two.feed.example.co.uk", "wss://feed.example.co.uk/"),
    ],
)
def test_hosts_of_the_same_site_may_see_it(host: str, configured: str):
    assert may_see_token(f"wss://{host}/socket.io/websocket", configured)


@pytest.mark.parametrize(
    ("host", "configured"),
    [
        ("example.com", FEED),
        ("nottradingview.com", FEED),
        ("tradingview.com.example.com", FEED),
        ("data.tradingview.com@example.com", FEED),
        ("example.com/.tradingview.com", FEED),
        ("example.com#.tradingview.com", FEED),
        ("example.com?.tradingview.com", FEED),
        ("example.com:443:.tradingview.com", FEED),
        ("", FEED),
        ("[::1", FEED),
        ("localhost:8080", "ws://127.0.0.1:8080/x"),
        ("127.0.0.2:8080", "ws://127.0.0.1:8080/x"),
        ("data.tradingview.com", "ws://127.0.0.1:8080/x"),
        ("other.example.co.uk", "wss://feed.example.co.uk/"),
        ("co.uk", "wss://feed.example.co.uk/"),
    ],
)
def test_other_hosts_may_not_however_they_are_written(host: str, configured: str):
    assert not may_see_token(f"wss://{host}/socket.io/websocket", configured)
