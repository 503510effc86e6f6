"""``lakehouse bars``, ``gaps``, ``tables`` and ``status``: the read side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import Format

Symbol = Annotated[
    str, typer.Argument(help="BINANCE:BTCUSDT, or BTCUSDT where one exchange has it")
]
From = Annotated[str | None, typer.Option("--from", help="ISO 8601, included; UTC")]
To = Annotated[str | None, typer.Option("--to", help="ISO 8601, excluded; UTC")]
Last = Annotated[str | None, typer.Option(help="2h, 30m …, counted back from the newest bar")]
With = Annotated[
    str | None,
    typer.Option("--with", help="rsi,macd,… beside the price; rsi:7 with parameters of its own"),
]
Carry = Annotated[
    bool,
    typer.Option(
        "--carry",
        help="carry indicators across gaps; else they start again, VWAP on the next UTC day",
    ),
]
Form = Annotated[Format, typer.Option("--format", help="stdout holds nothing else")]


# What a person reads first; machine formats have every column.
DETAIL_OF_BARS = (
    *("exchange", "symbol", "prev_close", "counter_start", "counter_end", "bid", "ask", "spread"),
    *("price_updates", "volume_updates", "time_updates", "quote_updates", "late_updates"),
    *("stretch", "flags", "state", "observed_seconds", "volume_basis"),
    *("price_deviation", "volume_deviation"),
)
DETAIL_OF_GAPS = ("gap_id", "exchange", "counter_before", "counter_after")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    app.command()(bars)
    app.command()(chart)
    app.command()(gaps)
    app.command()(tables)
    app.command()(status)


def bars(
    symbol: Symbol,
    interval: Annotated[str, typer.Option(help="1s, 1m, 5m, 1h, 1d …")] = "1m",
    start: From = None,
    end: To = None,
    last: Last = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="a row for every interval, saying why it is empty")
    ] = False,
    with_: With = None,
    carry: Carry = False,
    form: Form = Format.table,
) -> None:
    """Show OHLCV bars of a symbol at any interval."""
    from lakehouse_pipeline.build import views
    from lakehouse_pipeline.build.indicators import studies_named
    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.market.stretches import as_one_stretch, with_stretches
    from lakehouse_pipeline.settings import load_settings

    from .arguments import open_to_read, window_between
    from .output import write

    step = views.parse_interval(interval)
    chosen = load_settings().indicators
    studies = studies_named(with_.split(","), chosen) if with_ else []
    if dense and studies:
        raise UsageError("--dense excludes --with.", mend="Indicators stand on observed bars.")
    lake = open_to_read()
    name = views.resolve_symbol(symbol, views.recorded_symbols(lake))
    newest = views.newest_bar(lake, name, step)
    window = window_between(start, end, last=last, newest=newest)
    if dense:
        frame = views.read_dense_bars(lake, name, step=step, window=window)
    elif studies:
        stretch = as_one_stretch if carry else with_stretches
        frame = views.read_with_studies(
            lake, name, studies, step=step, window=window, stretch=stretch
        )
    else:
        frame = views.read_bars(lake, name, step=step, window=window)
    write(frame, form, title=f"{name} {interval}", hidden=DETAIL_OF_BARS)


def chart(
    symbol: Symbol,
    interval: Annotated[str, typer.Option(help="1s, 1m, 5m, 1h, 1d …")] = "1m",
    start: From = None,
    end: To = None,
    last: Last = None,
    with_: With = "rsi,macd",
    carry: Carry = False,
    out: Annotated[Path, typer.Option(help="the HTML file to write")] = Path("chart.html"),
) -> None:
    """Draw candles, volume, indicators and gaps into one HTML file."""
    from lakehouse_pipeline.build import views
    from lakehouse_pipeline.build.gaps import read_unseen
    from lakehouse_pipeline.build.indicators import studies_named
    from lakehouse_pipeline.charts import draw
    from lakehouse_pipeline.market.stretches import as_one_stretch, with_stretches
    from lakehouse_pipeline.settings import load_settings

    from .arguments import open_to_read, window_between

    step = views.parse_interval(interval)
    chosen = load_settings().indicators
    studies = studies_named(with_.split(","), chosen) if with_ else []
    lake = open_to_read()
    name = views.resolve_symbol(symbol, views.recorded_symbols(lake))
    newest = views.newest_bar(lake, name, step)
    window = window_between(start, end, last=last, newest=newest)
    stretch = as_one_stretch if carry else with_stretches
    bars = views.read_with_studies(lake, name, studies, step=step, window=window, stretch=stretch)
    missed = read_unseen(lake, symbols=[name], window=window)
    out.write_text(draw(bars, missed, title=f"{name} {interval}", studies=studies), "utf-8")
    typer.echo(f"{out}: {bars.height} bars")


def gaps(
    symbol: Annotated[str | None, typer.Argument(help="all by default")] = None,
    start: From = None,
    end: To = None,
    form: Form = Format.table,
) -> None:
    """Show the ledger of what was not seen, with causes and missed volume."""
    from lakehouse_pipeline.build import views
    from lakehouse_pipeline.build.gaps import read_gaps

    from .arguments import open_to_read, window_between
    from .output import write

    lake = open_to_read()
    names = [views.resolve_symbol(symbol, views.recorded_symbols(lake))] if symbol else None
    window = window_between(start, end, last=None, newest=None)
    write(
        read_gaps(lake, symbols=names, window=window),
        form,
        title="gaps",
        hidden=DETAIL_OF_GAPS,
    )


def tables(form: Form = Format.table) -> None:
    """Show every table with its rows, files and bytes."""
    from lakehouse_pipeline.build.views import describe_tables

    from .arguments import open_to_read
    from .output import write

    write(describe_tables(open_to_read()), form, title="tables")


def status(form: Form = Format.table) -> None:
    """Show each exchange's worker, how far it has recorded and how far bars are built."""
    from datetime import UTC, datetime

    from lakehouse_pipeline.build.status import describe_exchanges
    from lakehouse_pipeline.build.views import recorded_exchanges
    from lakehouse_pipeline.settings import load_settings

    from .arguments import open_to_read
    from .output import write

    settings = load_settings()
    lake = open_to_read()
    exchanges = sorted({*settings.exchanges, *recorded_exchanges(lake)})
    frame = describe_exchanges(lake, settings.state_dir, exchanges, now=datetime.now(UTC))
    write(frame, form, title="exchanges")
