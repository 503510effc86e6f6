"""The lines of the demo's running report: exchanges, what is waited for, bars, and the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.market.bars import Source

REMARKS = {
    Source.STREAM: "",
    Source.OFFICIAL: "  official, fetched",
    Source.MIXED: "  official, as it was not wholly seen",
}


def exchange_line(exchange: str, worker: WorkerStatus | None) -> str:
    """Return an exchange's live counts."""
    if worker is None:
        return f"{exchange:<8} no worker yet"
    trouble = "; ".join(worker.troubles)
    return (
        f"{exchange:<8} {'connected' if worker.connected else 'connecting'}, "
        f"{worker.symbols} symbols, {worker.quotes} quotes recorded; "
        f"{worker.pending} rows of all tables not in the lake yet"
        f"{'; ' + trouble if trouble else ''}"
    )


def waiting_line(symbol: str, workers: Iterable[WorkerStatus | None], *, now: datetime) -> str:
    """Return what is waited for once every worker records and no bar is built."""
    quotes = sum(worker.quotes for worker in workers if worker is not None)
    return (
        f"{now:%H:%M:%S} {quotes} quotes recorded; the first 1-minute bar of {symbol} is built "
        "within a minute of its end"
    )


def bar_lines(symbol: str, bars: pl.DataFrame) -> Iterator[str]:
    """Yield a head and one line a bar, with what is official marked; *bars* have RSI and MACD."""
    yield f"{symbol}, 1m UTC      open      high       low     close    volume   RSI   MACD"
    for bar in bars.iter_rows(named=True):
        prices = "".join(f"{bar[name]:>10.2f}" for name in ("open", "high", "low", "close"))
        volume = "unknown" if bar["volume"] is None else f"{bar['volume']:.4f}"
        studies = f"{_figure(bar['rsi'], 6, 1)}{_figure(bar['macd'], 7, 2)}"
        remark = REMARKS[Source(bar["source"])]
        yield f"  {bar['open_time']:%Y-%m-%d %H:%M}    {prices}{volume:>10}{studies}{remark}"


def end_line(rows: dict[str, int], state_dir: Path, symbol: str) -> str:
    """Return what a demo leaves behind: *rows* by what they are, and how to read them."""
    counts = ", ".join(f"{count} {what}" for what, count in rows.items())
    return (
        f"The demo has ended; it made {counts}. All of it stays in {state_dir}: "
        f"LAKEHOUSE_STATE_DIR={state_dir} .venv/bin/lakehouse bars {symbol} --with rsi,macd"
    )


def _figure(value: float | None, width: int, digits: int) -> str:
    return "-".rjust(width) if value is None else f"{value:>{width}.{digits}f}"
