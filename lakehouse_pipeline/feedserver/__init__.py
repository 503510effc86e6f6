"""A feed server that speaks TradingView's websocket protocol, for tests, demos and replays.

A `Market` says what is traded; everything about connections, sessions and packets is the same
for all markets. All of it runs in market time (see `clock`). Add a market by implementing
`market.Market`; add misbehaviour in `faults`, never as a switch in the server.
"""

from __future__ import annotations

from .generated import generated_market
from .market import Counter, Market
from .server import FeedServer
from .trades import trades_market

__all__ = ["Counter", "FeedServer", "Market", "generated_market", "trades_market"]
