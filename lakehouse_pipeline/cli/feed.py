"""``lakehouse feed serve``, ``feed record``, ``replay``: feeds other than TradingView's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

feed = typer.Typer(help="The bundled feed server, and recording.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    feed.command()(serve)
    feed.command()(record)
    app.add_typer(feed, name="feed")
    app.command()(replay)


def serve(
    port: Annotated[int, typer.Option(help="0: any free one")] = 0,
    market: Annotated[
        str | None, typer.Option(help="generated, trades or recording; told by the files given")
    ] = None,
    trades: Annotated[
        list[str] | None, typer.Option(help="SYMBOL=FILE: Parquet of trades; repeatable")
    ] = None,
    quotes: Annotated[
        list[str] | None, typer.Option(help="SYMBOL=FILE: Parquet of bid and ask; repeatable")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option(help="JSON lines as `feed record` writes them")
    ] = None,
    symbols: Annotated[str | None, typer.Option(help="A,B: full names; all by default")] = None,
    seed: Annotated[int, typer.Option(help="of the generated market")] = 0,
    start: Annotated[
        str | None, typer.Option(help="market time at the start: ISO 8601, or now")
    ] = None,
    speed: Annotated[float, typer.Option(help="market seconds a second")] = 1.0,
    counter: Annotated[str, typer.Option(help="volume counter: session or rolling")] = "session",
    faults: Annotated[Path | None, typer.Option(help="YAML of faults in market time")] = None,
    token: Annotated[
        list[str] | None, typer.Option(help="an accepted token; repeatable; any by default")
    ] = None,
    deflate: Annotated[bool, typer.Option(help="offer permessage-deflate")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="as unforgiving as can be")] = False,
) -> None:
    """Serve TradingView's protocol from a generated market, real trades or a recording."""
    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.feedserver.market import Counter
    from lakehouse_pipeline.feedserver.serve import ServeOptions, instant, run, symbol_files

    if counter not in set(Counter):
        raise UsageError(f"Counter {counter!r} is unknown.", mend=f"Known: {', '.join(Counter)}.")
    run(
        ServeOptions(
            port=port,
            market=market,
            trades=symbol_files(trades or ()),
            quotes=symbol_files(quotes or ()),
            recording=recording,
            symbols=tuple(symbols.split(",")) if symbols else (),
            seed=seed,
            start=instant(start) if start else None,
            speed=speed,
            counter=Counter(counter),
            faults=faults,
            tokens=tuple(token or ()),
            deflate=deflate,
            strict=strict,
        )
    )


def record(
    out: Annotated[Path, typer.Option(help="the file to write, JSON lines")],
    exchange: Annotated[str | None, typer.Option(help="one of exchanges.yaml")] = None,
    symbols: Annotated[str | None, typer.Option(help="A,B: full names")] = None,
    seconds: Annotated[float | None, typer.Option(help="stop after this long; else Ctrl-C")] = None,
) -> None:
    """Record the feed's raw websocket messages; an existing file is continued."""
    import asyncio
    import signal

    from lakehouse_pipeline.errors import FeedUnreachable, UsageError
    from lakehouse_pipeline.feedserver.recorder import record as copy_messages
    from lakehouse_pipeline.ingest.clock import make_clock
    from lakehouse_pipeline.settings import load_settings

    settings = load_settings()
    if (exchange is None) == (symbols is None):
        raise UsageError("Say what to record.", mend="Give either --exchange or --symbols.")
    names = settings.symbols(exchange) if exchange else (symbols or "").split(",")

    async def until_stopped() -> None:
        stop, clock = asyncio.Event(), make_clock(settings.clock)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if seconds is not None:
            loop.call_later(seconds, stop.set)
        await copy_messages(
            settings.feed, names, out, stop=stop, now=clock.now, greeted=clock.anchor
        )

    before = out.stat().st_size if out.exists() else 0
    asyncio.run(until_stopped())
    added = out.stat().st_size - before
    if not added:
        raise FeedUnreachable(
            f"Nothing was recorded from {settings.feed.url.split('?')[0]}.",
            mend="`lakehouse doctor` says whether the feed can be reached.",
        )
    typer.echo(f"{out}: {added} bytes added")


def replay(
    recording: Annotated[Path, typer.Argument(help="JSON lines as `feed record` writes them")],
) -> None:
    """Put a recording through decoder, spool and sink into the lake, in recorded time."""
    from lakehouse_pipeline.ingest.replay import replay as run
    from lakehouse_pipeline.settings import load_settings

    report = run(load_settings(), recording)
    typer.echo(
        f"{recording}: {report.messages} messages, {report.quotes} quotes, "
        f"{report.rejects} rejects, {report.sessions} sessions"
    )
