"""How far the feed's studies are stored, as a starting worker asks the lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lakehouse_pipeline.ingest.landed import MOST_BARS, Line, newest_values
from lakehouse_pipeline.ingest.rows import micros
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.maintenance import seal
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
A, B = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
RSI, MACD = ("rsi", "length=14"), ("macd", "fast=12,slow=26,signal=9")


def value(symbol: str, study: tuple[str, str], ago: timedelta, sequence: int = 1) -> pl.DataFrame:
    at = NOW - ago
    row = {
        "exchange": "BINANCE",
        "symbol": symbol,
        "event_time": at,
        "received_at": at,
        "name": study[0],
        "parameters": study[1],
        "plot": "p",
        "value": 1.0,
        "session_id": "s",
        "writer_id": "w",
        "sequence": sequence,
    }
    return pl.DataFrame([row], schema=schemas.RAW_INDICATORS)


def newest(lake: Lakehouse) -> dict[Line, timedelta]:
    found = newest_values(lake, "BINANCE", [A, B], [RSI, MACD], now=NOW)
    return {line: timedelta(microseconds=micros(NOW) - bar) for line, bar in found.items()}


def test_of_an_empty_lake_nothing_is_known(lake: Lakehouse):
    assert newest(lake) == {}


@pytest.mark.parametrize("sealed", [False, True])
def test_each_line_is_found_where_it_ended(lake: Lakehouse, sealed):
    for sequence, (symbol, study, ago) in enumerate(
        [
            (A, RSI, 5 * HOUR),
            (A, RSI, MINUTE),
            (A, MACD, 5 * HOUR),
            (A, ("rsi", "length=7"), MINUTE),  # not asked for any more
            (B, RSI, 3 * DAY),
            (B, MACD, 40 * DAY),  # no chart reaches it
        ]
    ):
        lake.append("raw.indicators", value(symbol, study, ago, sequence))
    if sealed:
        seal(lake, "raw.indicators", before=NOW)

    assert newest(lake) == {
        (A, *RSI): MINUTE,
        (A, *MACD): 5 * HOUR,
        (B, *RSI): 3 * DAY,
    }


def test_a_symbol_away_for_long_is_still_known(lake: Lakehouse):
    ago = 3 * MOST_BARS * MINUTE
    lake.append("raw.indicators", value(A, RSI, ago))

    assert newest(lake) == {(A, *RSI): ago}
