"""The ``lakehouse`` command.

A command is: arguments → settings → one function below → output. Heavy imports wait inside their
command, so that ``lakehouse --help`` and ``lakehouse feed serve`` start at once and none imports
Dagster. Errors on purpose end as one line on standard error and their exit code: 2 for a mistake
in what was asked, 1 for the machine or a service.
"""

from __future__ import annotations

import sys

import typer

from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.telemetry import configure_logging

from . import bench, build, doctor, feed, maintain, read, run

app = typer.Typer(
    name="lakehouse",
    help="A crypto lakehouse that says what it knows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (run, feed, build, read, doctor, maintain, bench):
    part.register(app)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    configure_logging()
    try:
        app()
    except LakehouseError as error:
        print(f"lakehouse: {error}", file=sys.stderr)  # noqa: T201  # the command's own voice
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        raise SystemExit(0) from None
