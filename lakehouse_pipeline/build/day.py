"""Everything that is built of one exchange and day, in the order of the asset graph."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.indicators import Study
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline.memory import give_back_what_is_freed
from lakehouse_pipeline.settings import Settings

from .bars import build_1m, build_1s, current_watermark
from .gaps import build_gaps
from .indicators import build_indicators
from .inputs import Inputs
from .reconciliation import REACH, build_reconciliation
from .result import BuildResult
from .symbols import build_symbols


def build_day(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    studies: Sequence[Study],
    symbols: Sequence[str] | None = None,
    reach: timedelta = REACH,
) -> list[BuildResult]:
    """Rebuild every table of *day*; nothing before the exchange's first recording.

    *reach* is how far back the feed's history is sure to go, which tells open gaps from lost ones.
    """
    seen_up_to = current_watermark(lake, exchange)
    if seen_up_to is None:
        return []
    inputs = Inputs(lake, exchange, day, symbols=symbols)
    window = TimeWindow.of_day(day)
    results = [
        *_from_quotes(lake, exchange, day, watermark=seen_up_to, symbols=symbols, inputs=inputs),
        *build_1m(
            lake,
            exchange,
            window,
            watermark=seen_up_to,
            symbols=symbols,
            seconds_end=seen_up_to,
            inputs=inputs,
        ),
        build_indicators(lake, exchange, day, studies, watermark=seen_up_to, symbols=symbols),
        build_reconciliation(
            lake, exchange, day, watermark=seen_up_to, reach=reach, symbols=symbols
        ),
    ]
    return [result for result in results if result is not None]


def _from_quotes(
    lake: Lakehouse,
    exchange: str,
    day: date,
    *,
    watermark: datetime,
    symbols: Sequence[str] | None,
    inputs: Inputs,
) -> list[BuildResult]:
    """Rebuild the tables that are made of quotes, which are read once and then let go."""
    window = TimeWindow.of_day(day)
    return [
        build_symbols(lake, exchange, day, watermark=watermark, symbols=symbols, inputs=inputs),
        build_gaps(lake, exchange, day, watermark=watermark, symbols=symbols, inputs=inputs),
        *build_1s(lake, exchange, window, watermark=watermark, symbols=symbols, inputs=inputs),
    ]


def build_exchange_day(
    exchange_day: tuple[str, date],
    *,
    settings: Settings,
    studies: Sequence[Study],
    symbols: Sequence[str] | None = None,
) -> list[BuildResult]:
    """Do ``build_day`` on a lake of its own, in whatever process this is."""
    give_back_what_is_freed()
    with Lakehouse.open(settings) as lake:
        return build_day(
            lake, *exchange_day, studies=studies, symbols=symbols, reach=settings.history.reach
        )
