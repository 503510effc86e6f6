"""``lakehouse build``: the tables of whole days, without Dagster."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Engine(StrEnum):
    LOCAL = "local"
    RAY = "ray"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    app.command("build")(build)


def build(
    exchange: Annotated[str, typer.Option(help="BINANCE, OKX, BYBIT …")],
    first: Annotated[str, typer.Option("--from", help="first UTC day, 2024-08-09")],
    last: Annotated[str, typer.Option("--to", help="last UTC day, included")],
    symbols: Annotated[str | None, typer.Option(help="A,B: only these; all by default")] = None,
    engine: Annotated[
        Engine, typer.Option(help="ray: several days at a time; needs the extra ray")
    ] = Engine.LOCAL,
) -> None:
    """Build bars, gaps, indicators and the loss budget of an exchange's days, day by day."""
    from functools import partial

    from lakehouse_pipeline.build import views
    from lakehouse_pipeline.build.day import build_exchange_day
    from lakehouse_pipeline.build.indicators import studies_of
    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.lake.lakehouse import Lakehouse
    from lakehouse_pipeline.settings import load_settings

    from .arguments import parse_days

    days = parse_days(first, last)
    settings = load_settings()
    if engine is Engine.RAY:
        from lakehouse_pipeline.engine.ray import map_partitions
    else:
        from lakehouse_pipeline.engine.local import map_partitions
    lake = Lakehouse.open(settings)
    known = sorted({*settings.exchanges, *views.recorded_exchanges(lake)})
    if exchange not in known:
        raise UsageError(
            f"Exchange {exchange!r} is neither configured nor recorded.",
            mend=f"Known: {', '.join(known) or 'none'}.",
        )
    recorded = views.recorded_symbols(lake, exchange)
    names = (
        [views.resolve_symbol(name, recorded) for name in symbols.split(",")] if symbols else None
    )
    one_day = partial(
        build_exchange_day,
        settings=settings,
        studies=studies_of(settings.indicators),
        symbols=names,
    )
    for results in map_partitions(one_day, [(exchange, day) for day in days]):
        for result in results:
            typer.echo(
                f"{result.slice.window.start:%Y-%m-%d} {exchange} {result.table}: "
                f"{result.rows} rows"
            )
