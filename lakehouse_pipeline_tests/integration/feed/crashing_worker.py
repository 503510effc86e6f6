"""A worker process that kills itself at a named point; started by test_crashes.py.

The points are seams of the package, wrapped here: the package itself knows nothing of crashes.
Every append the spool has acknowledged is written to a ledger, which the test compares with the
lake.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lakehouse_pipeline.ingest import worker
from lakehouse_pipeline.ingest.spool import Spool
from lakehouse_pipeline.lake import lakehouse
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.telemetry import configure_logging


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(owner: Any, name: str, *, before: Callable | None = None, after: Callable | None = None):
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(result, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def on_table(table: str, hits: int) -> Callable:
    """Die at the given append to *table*."""
    seen = 0

    def check(_lake: lakehouse.Lakehouse, name: str, *_args, **_kwargs):
        nonlocal seen
        seen += name == table
        if seen == hits:
            die()

    return check


def after_call(check: Callable) -> Callable:
    return lambda _result, *args, **kwargs: check(*args, **kwargs)


def nth(hits: int) -> Callable:
    seen = 0

    def check(*_args, **_kwargs):
        nonlocal seen
        seen += 1
        if seen == hits:
            die()

    return check


def keep_ledger(path: Path) -> None:
    def write(last: int, spool: Spool, entries):
        first = last - len(entries) + 1
        quotes = [
            (first + index, row[5], row[7])
            for index, (target, row) in enumerate(entries)
            if target == "quotes"
        ]
        with path.open("a") as ledger:
            ledger.write("\n" + json.dumps([spool.writer_id, quotes]))

    wrap(Spool, "append", after=write)


def crash_at(point: str) -> None:
    match point:
        case "received":
            wrap(Spool, "append", before=nth(4))
        case "spooled":
            wrap(Spool, "append", after=nth(4))
        case "before_commit":
            wrap(lakehouse.Lakehouse, "append", before=on_table("raw.quotes", 2))
        case "parquet_written":
            wrap(lakehouse, "append_files", before=nth(3))
        case "after_quotes":
            wrap(lakehouse.Lakehouse, "append", after=after_call(on_table("raw.quotes", 2)))
        case "after_coverage":
            wrap(lakehouse.Lakehouse, "append", after=after_call(on_table("raw.coverage", 2)))
        case "before_forgetting":
            wrap(Spool, "forget", before=nth(2))
        case "recovering":
            wrap(worker, "settle", after=nth(1))
        case "never":
            pass
        case _:
            raise ValueError(point)


def main() -> None:
    configure_logging()
    settings = Settings.model_validate_json(sys.argv[1])
    keep_ledger(Path(sys.argv[2]))
    crash_at(sys.argv[3])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    (exchange,) = settings.exchanges
    try:
        worker.run_worker(settings, exchange)
    except KeyboardInterrupt:
        sys.stdout.write("FLUSHED\n")


main()
