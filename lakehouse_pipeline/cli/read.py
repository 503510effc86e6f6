"""``lakehouse bars``, ``gaps``, ``tables`` and ``status``: the read side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lakehouse_pipeline.errors import UsageError

from .output import Format

Symbol = Annotated[
    str, typer.Argument(help="BINANCE:BTCUSDT, or BTCUSDT where one exchange has it")
]
Interval = Annotated[str, typer.Option(help="1s, 1m, 5m, 1h, 1d …")]
From = Annotated[str | None, typer.Option("--from", help="ISO 8601, included; UTC")]
To = Annotated[str | None, typer.Option("--to", help="ISO 8601, excluded; UTC")]
Last = Annotated[
    str | None,
    typer.Option(help="2h, 30m …, up to the end of the newest bar; by default all there is"),
]
LastShown = Annotated[
    str | None,
    typer.Option(
        help="2h, 30m …, up to the end of the newest bar; by default a table shows the newest "
        "60 intervals, and machine formats have all there is"
    ),
]
With = Annotated[
    str | None,
    typer.Option(
        "--with",
        help="rsi,macd,… beside the price; rsi:7 or macd:5:10:3 with parameters of its own; "
        "docs/reference/indicators.md lists them",
    ),
]
Carry = Annotated[
    bool,
    typer.Option(
        "--carry",
        help="carry indicators across gaps; else they start again, VWAP on the next UTC day",
    ),
]
Form = Annotated[Format, typer.Option("--format", help="stdout holds nothing else")]


SHOWN = 60  # intervals that a table has if no time was asked for
# What a person does not look at; machine formats have every column.
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
    interval: Interval = "1m",
    start: From = None,
    end: To = None,
    last: LastShown = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="a row for every interval, saying why it is empty")
    ] = False,
    with_: With = None,
    carry: Carry = False,
    form: Form = Format.table,
) -> None:
    """Show OHLCV bars of a symbol at any interval."""
    from lakehouse_pipeline.build import views
    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.market.stretches import as_one_stretch, with_stretches

    from .arguments import ask_for_bars
    from .output import write
    from .people import to_read

    asked = ask_for_bars(symbol, interval, start=start, end=end, last=last, with_=with_)
    if carry and not asked.studies:
        raise UsageError("--carry needs --with.", mend="Say which indicators it is to carry.")
    if dense and asked.studies:
        raise UsageError("--dense excludes --with.", mend="Indicators stand on observed bars.")
    is_cut = asked.window is None and form is Format.table
    window = asked.newest(SHOWN) if is_cut else asked.window
    if dense:
        frame = views.read_dense_bars(asked.lake, asked.symbol, step=asked.step, window=window)
    elif asked.studies:
        stretch = as_one_stretch if carry else with_stretches
        frame = views.read_with_studies(
            asked.lake, asked.symbol, asked.studies, step=asked.step, window=window, stretch=stretch
        )
    else:
        frame = views.read_bars(asked.lake, asked.symbol, step=asked.step, window=window)
    title = f"{asked.symbol} {interval}, UTC"
    write(frame, form, title=title, shown=to_read(frame, asked.studies))
    if is_cut and frame.height:
        typer.echo(f"The newest {SHOWN} intervals. --last, --from and --to show others.")


def chart(
    symbol: Symbol,
    interval: Interval = "1m",
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
    from lakehouse_pipeline.charts import draw
    from lakehouse_pipeline.market.stretches import as_one_stretch, with_stretches

    from .arguments import ask_for_bars

    asked = ask_for_bars(symbol, interval, start=start, end=end, last=last, with_=with_)
    name, window, studies = asked.symbol, asked.window, asked.studies
    stretch = as_one_stretch if carry else with_stretches
    bars = views.read_with_studies(
        asked.lake, name, studies, step=asked.step, window=window, stretch=stretch
    )
    missed = read_unseen(asked.lake, symbols=[name], window=window)
    page = draw(bars, missed, title=f"{name} {interval}", studies=studies)
    try:
        out.write_text(page, "utf-8")
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written: {error.strerror}.", mend="Name another file with --out."
        ) from error
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
    frame = read_gaps(lake, symbols=names, window=window_between(start, end))
    nothing = "none in the ledger, which is written each hour and by `lakehouse build`"
    write(frame, form, title="gaps", shown=frame.drop(DETAIL_OF_GAPS), nothing=nothing)


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
