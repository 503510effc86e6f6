"""``lakehouse bench``: figures beside peers' in the same run, as a table.

A benchmark is a module in the checkout's ``lakehouse_pipeline_tests/benchmarks`` with a ``run``;
this command finds it by its name and shows what it returns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import Format

# Beside the package in a checkout; an installed wheel has none.
ROOT = Path(__file__).parents[2]
PACKAGE = "lakehouse_pipeline_tests.benchmarks"


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    app.command("bench")(bench)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="all by default")] = None,
    scale: Annotated[float, typer.Option(min=0, help="1 is the size promised; 0.05 a try")] = 1.0,
    form: Annotated[Format, typer.Option("--format")] = Format.table,
) -> None:
    """Measure against peers in the same run; exit 1 if a limit is not met."""
    import importlib
    import logging
    import sys
    import tempfile

    import polars as pl

    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.telemetry import configure_logging

    from .output import write

    configure_logging(logging.WARNING)  # thousands of commits would each say that they are done
    known = find_benchmarks()
    for name in names or []:
        if name not in known:
            raise UsageError(
                f"Benchmark {name!r} is not known.",
                mend=f"Known: {', '.join(known) or 'none; they are in a checkout only'}.",
            )
    sys.path.insert(0, str(ROOT))
    rows: list[tuple[object, ...]] = []
    for name in names or known:
        typer.echo(f"{name} …", err=True)
        module = importlib.import_module(f"{PACKAGE}.{name}")
        with tempfile.TemporaryDirectory() as folder:
            lines = module.run(Path(folder), scale=scale, say=_say)
        rows += [
            (name, line.what, round(line.value, 3), line.limit, line.unit, line.met)
            for line in lines
        ]
    columns = ["benchmark", "what", "value", "limit", "unit", "met"]
    frame = pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)
    write(frame, form, title="benchmarks")
    if not frame["met"].all():
        raise typer.Exit(1)


def find_benchmarks() -> list[str]:
    """Return the names of the modules that have a ``run``."""
    folder = ROOT.joinpath(*PACKAGE.split("."))
    return sorted(
        path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text("utf-8")
    )


def _say(text: object) -> None:
    typer.echo(f"  {text}", err=True)
