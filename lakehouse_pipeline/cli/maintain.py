"""``lakehouse maintain``: what the schedules do to the tables' files, by hand.

Every verb may run beside recorders, ticks and readers, may be killed, and may be run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lakehouse_pipeline.lake.lakehouse import Lakehouse
    from lakehouse_pipeline.lake.maintenance import Budget, Rewritten

maintain = typer.Typer(
    help="Keep the tables' files few and their folders clean.", no_args_is_help=True
)

Tables = Annotated[
    list[str] | None, typer.Argument(metavar="[TABLE]...", help="all tables by default")
]
Before = Annotated[
    str | None, typer.Option(help="hours and days that end before it are closed; the last hour")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what there is to do, and do nothing")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    app.add_typer(maintain, name="maintain")


@maintain.command()
def seal(tables: Tables = None, before: Before = None, dry_run: DryRun = False) -> None:
    """Move closed hours that the bars have read into (symbol, day) files."""
    from lakehouse_pipeline.build.upkeep import seal_consumed

    until, budget = _closed(before), _budget(dry_run)
    _rewrite(
        tables, dry_run, lambda lake, name: seal_consumed(lake, name, before=until, budget=budget)
    )


@maintain.command()
def compact(tables: Tables = None, before: Before = None, dry_run: DryRun = False) -> None:
    """Merge the small files of each (symbol, day)."""
    from lakehouse_pipeline.lake import maintenance

    until, budget = _closed(before), _budget(dry_run)
    _rewrite(
        tables,
        dry_run,
        lambda lake, name: maintenance.compact(lake, name, before=until, budget=budget),
    )


@maintain.command()
def expire(tables: Tables = None, dry_run: DryRun = False) -> None:
    """Forget old snapshots; daily tags and what they show stay."""
    from lakehouse_pipeline.lake import maintenance

    with _lake() as lake:
        for table in _named(tables):
            old = maintenance.expirable(lake, table)
            count = old if dry_run else maintenance.expire(lake, table)
            typer.echo(f"{table}: {count} snapshots {'to forget' if dry_run else 'forgotten'}")


@maintain.command()
def clean(
    tables: Tables = None,
    guard: Annotated[
        str, typer.Option(help="2h, 24h, 2d: wait so long after a file was found, 1h at least")
    ] = "24h",
    alone: Annotated[
        bool, typer.Option("--alone", help="nobody else reads or writes: wait for nobody")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--delete", help="by default only say what would be deleted")
    ] = True,
) -> None:
    """Delete files that no snapshot refers to; with --delete, else only name them.

    Somebody may still read a file that was replaced a moment ago. So the first run notes what it
    finds, and a later one deletes what was found a guard time ago.
    """
    from lakehouse_pipeline.build.views import parse_span
    from lakehouse_pipeline.lake import cleaning

    waiting_time = cleaning.NO_GUARD if alone else cleaning.checked_guard(parse_span(guard))
    with _lake() as lake:
        for table in _named(tables):
            plan = cleaning.plan_cleaning(lake, table, now=datetime.now(UTC), guard=waiting_time)
            if dry_run:
                for file in plan.files:
                    typer.echo(file.path)
                said = f"{len(plan.files)} files, {plan.bytes} bytes to delete"
                count = len(plan.waiting)
            else:
                done = cleaning.apply_cleaning(lake, plan)
                said = f"{done.files} files, {done.bytes} bytes deleted"
                count = done.waiting
            rest = f"; {count} wait for their guard time" if count else ""
            typer.echo(f"{table}: {said}{rest}")


@maintain.command()
def accept(
    table: Annotated[str, typer.Argument(help="the table that cleaning and doctor doubt")],
    dry_run: DryRun = False,
) -> None:
    """Say that the catalog is right, and what it does not know of in a folder is of no use.

    For after a catalog was restored from a backup or made anew, and a newer one cannot be brought
    back: cleaning then deletes what the lost one alone knew, after its guard time.
    """
    from lakehouse_pipeline.lake import cleaning

    with _lake() as lake:
        (name,) = _named([table])
        files = (cleaning.unknown_files if dry_run else cleaning.accept_catalog)(lake, name)
        total = sum(file.bytes for file in files)
        said = "would be" if dry_run else "are"
        typer.echo(f"{name}: {len(files)} files, {total} bytes {said} accepted as of no use")


@contextmanager
def _lake() -> Iterator[Lakehouse]:
    from .arguments import open_to_read

    with open_to_read() as lake:
        yield lake


def _named(tables: list[str] | None) -> list[str]:
    """Return the tables named, all if none is.

    Raises:
        UsageError: if there is no such table.
    """
    from lakehouse_pipeline.errors import UsageError
    from lakehouse_pipeline.lake.tables import TABLES

    for table in tables or ():
        if table not in TABLES:
            raise UsageError(f"There is no table {table!r}.", mend=f"Known: {', '.join(TABLES)}.")
    return tables or list(TABLES)


def _closed(before: str | None) -> datetime:
    from lakehouse_pipeline.market.windows import HOUR, floor

    from .arguments import parse_time

    return floor(datetime.now(UTC), HOUR) if before is None else parse_time(before)


def _budget(dry_run: bool) -> Budget | None:
    from lakehouse_pipeline.lake.maintenance import Budget

    return Budget(length=timedelta(0)) if dry_run else None


def _rewrite(
    tables: list[str] | None, dry_run: bool, work: Callable[[Lakehouse, str], Rewritten]
) -> None:
    """Do *work* for each table; damaged files are left out, named, and make the command fail."""
    damaged: list[str] = []
    with _lake() as lake:
        for table in _named(tables):
            done = work(lake, table)
            _say(done, dry_run)
            damaged += done.damaged
    for path in damaged:
        typer.echo(f"damaged and left out: {path}", err=True)
    if damaged:
        typer.echo("`lakehouse doctor` says how to mend them.", err=True)
        raise typer.Exit(1)


def _say(done: Rewritten, dry_run: bool) -> None:
    waiting = f"{done.backlog_files} files, {done.backlog_bytes} bytes"
    if dry_run:
        typer.echo(f"{done.table}: {waiting} to rewrite")
        return
    rest = f"; left for later: {waiting}" if done.backlog_files else ""
    typer.echo(
        f"{done.table}: {done.files_removed} files became {done.files_added}, "
        f"{done.rows} rows moved{rest}"
    )
