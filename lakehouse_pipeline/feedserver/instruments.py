"""The static side of a symbol: names, precision, and the fields the feed says about them.

Add a base or quote currency here. Prices and volumes belong to the markets.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from lakehouse_pipeline.errors import UsageError

# The bases a generated market knows: name, price level, decimals of price and of size,
# trades a second in a busy hour.
BASES: dict[str, tuple[str, float, int, int, float]] = {
    "BTC": ("Bitcoin", 97_000.0, 2, 5, 3.0),
    "ETH": ("Ethereum", 3_300.0, 2, 4, 2.5),
    "SOL": ("Solana", 190.0, 2, 3, 2.0),
    "XRP": ("XRP", 2.4, 4, 1, 1.5),
    "BNB": ("BNB", 690.0, 2, 3, 1.0),
    "DOGE": ("Dogecoin", 0.35, 5, 0, 1.2),
    "ADA": ("Cardano", 0.98, 4, 1, 0.6),
    "AVAX": ("Avalanche", 38.0, 2, 2, 0.5),
    "LINK": ("Chainlink", 23.0, 2, 2, 0.5),
    "DOT": ("Polkadot", 7.1, 3, 2, 0.3),
    "LTC": ("Litecoin", 108.0, 2, 3, 0.3),
    "ATOM": ("Cosmos", 6.6, 3, 2, 0.05),
}
CURRENCIES = {
    "USDT": "TetherUS",
    "USDC": "USD Coin",
    "USD": "U.S. dollar",
    "EUR": "Euro",
    "BTC": "Bitcoin",
}
DISPLAY = {"BINANCE": "Binance", "BYBIT": "Bybit", "COINBASE": "Coinbase", "BITSTAMP": "Bitstamp"}

_NAME = re.compile(r"[A-Z0-9_]+:[A-Z0-9._!]+")


@dataclass(frozen=True, slots=True)
class Instrument:
    """*price_scale* and *size_scale* are units per one: prices are multiples of 1/price_scale."""

    name: str
    price_scale: int
    size_scale: int

    @property
    def exchange(self) -> str:
        return self.name.partition(":")[0]

    @property
    def ticker(self) -> str:
        return self.name.partition(":")[2]

    @property
    def pair(self) -> tuple[str, str]:
        """Base and quote currency, as well as the ticker tells."""
        return split_pair(self.ticker)

    def quote_fields(self) -> dict[str, Any]:
        """Return the static fields of a first quote packet, in the order of real ones."""
        base, currency = self.pair
        return {
            "update_mode": "streaming",
            "typespecs": ["crypto"],
            "type": "spot",
            "short_name": self.ticker,
            "rtc": None,
            "rchp": None,
            "rtc_time": None,
            "rch": None,
            "provider_id": self.exchange.lower(),
            "pro_name": self.name,
            "pricescale": self.price_scale,
            "original_name": self.name,
            "minmove2": 0,
            "minmov": 1,
            "listed_exchange": self.exchange,
            "is_tradable": True,
            "fractional": False,
            "format": "price",
            "exchange": DISPLAY.get(self.exchange, self.exchange),
            "description": _description(base, currency),
            "current_session": "market",
            "currency_id": currency,
            "currency_code": currency,
            "currency-logoid": f"crypto/XTVC{currency}",
            "base_currency_id": f"XTVC{base}",
            "base-currency-logoid": f"crypto/XTVC{base}",
            "timezone": "Etc/UTC",
        }

    def resolved_fields(self) -> dict[str, Any]:
        """Return what ``symbol_resolved`` says, after a crypto capture of 2026."""
        base, currency = self.pair
        display = DISPLAY.get(self.exchange, self.exchange)
        return {
            "source2": {
                "country": "",
                "description": display,
                "exchange-type": "exchange",
                "id": self.exchange,
                "name": display,
                "url": "",
            },
            "currency_code": currency,
            "source_id": self.exchange,
            "subsession_id": "regular",
            "provider_id": self.exchange.lower(),
            "base_currency_id": f"XTVC{base}",
            "base_currency": base,
            "currency_id": currency,
            "format": "price",
            "formatter": "price",
            "pro_perm": "",
            "volume_type": "base",
            "measure": "price",
            "allowed_adjustment": "none",
            "short_description": _description(base, currency),
            "variable_tick_size": "",
            "name": self.ticker,
            "full_name": self.name,
            "pro_name": self.name,
            "base_name": [self.name],
            "description": _description(base, currency),
            "exchange": display,
            "pricescale": self.price_scale,
            "pointvalue": 1.0,
            "minmov": 1,
            "session": "24x7",
            "session_display": "24x7",
            "subsessions": [
                {
                    "description": "Regular Trading Hours",
                    "id": "regular",
                    "private": False,
                    "session": "24x7",
                    "session-display": "24x7",
                }
            ],
            "type": "spot",
            "typespecs": ["crypto"],
            "has_intraday": True,
            "fractional": False,
            "listed_exchange": self.exchange,
            "legs": [self.name],
            "is_tradable": True,
            "minmove2": 0,
            "timezone": "Etc/UTC",
            "aliases": [],
            "alternatives": [],
            "is_replayable": True,
            "has_adjustment": False,
            "has_extended_hours": False,
            "bar_source": "trade",
            "bar_transform": "none",
            "bar_fillgaps": False,
            "visible_plots_set": "ohlcv",
            "is-tickbars-available": True,
            "exchange_listed_name": self.ticker,
        }


def full_name(key: str) -> str:
    """Return the instrument a subscription key means: a plain name or ``={"symbol": …}``.

    Anything unreadable is returned as it came, so that it is answered as an unknown symbol.
    """
    if not key.startswith("="):
        return key
    try:
        content = json.loads(key[1:])
    except ValueError:
        return key
    while isinstance(content, dict):  # replay and special bar types nest the symbol
        content = content.get("symbol")
    return content if isinstance(content, str) else key


def check_name(name: str) -> str:
    """Return *name* if it is a full name.

    Raises:
        UsageError: if it is not ``EXCHANGE:TICKER`` in capitals.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Symbol {name!r} is malformed.",
            mend="Write it in full and in capitals, such as BINANCE:BTCUSDT.",
        )
    return name


def split_pair(ticker: str) -> tuple[str, str]:
    """Return base and quote currency of *ticker*; an unknown quote counts as USD."""
    plain = ticker.removesuffix(".P")
    for currency in CURRENCIES:
        if plain.endswith(currency) and plain != currency:
            return plain.removesuffix(currency), currency
    return plain, "USD"


def _description(base: str, currency: str) -> str:
    name = BASES[base][0] if base in BASES else base
    return f"{name} / {CURRENCIES[currency]}"
