"""``lakehouse demo``, ``up`` and ``down``: the whole deployment."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    app.command()(demo)
    app.command()(up)
    app.command()(down)


def demo(
    seconds: Annotated[
        float | None,
        typer.Option(help="end by itself this long after all workers have durable rows"),
    ] = None,
) -> None:
    """Run everything against the bundled feed server; Ctrl-C stops it in order."""
    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.settings import load_settings
    from lakehouse_pipeline.stack import demo

    if seconds is None and (text := os.environ.get("DEMO_SECONDS")):
        try:
            seconds = float(text)
        except ValueError as error:
            raise UsageError(
                f"DEMO_SECONDS={text!r} is no number.", mend="Write seconds, such as 120."
            ) from error
    raise typer.Exit(demo.demo(load_settings(), seconds))


def up() -> None:
    """Record and build what exchanges.yaml names; Ctrl-C or `lakehouse down` stops it."""
    from lakehouse_pipeline import stack
    from lakehouse_pipeline.settings import load_settings

    raise typer.Exit(stack.up(load_settings()))


def down() -> None:
    """Stop what `lakehouse up` started elsewhere, and wait until it has ended."""
    from lakehouse_pipeline import stack
    from lakehouse_pipeline.settings import load_settings

    raise typer.Exit(stack.down(load_settings()))
