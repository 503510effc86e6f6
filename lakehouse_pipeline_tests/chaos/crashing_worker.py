"""A worker process that kills itself at a named point; started by ``workers``.

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

from lakehouse_pipeline.ingest import recording, worker
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


def if_true(result: object, *_args, **_kwargs) -> None:
    if result:
        die()


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


def at_table(table: str, when: str) -> Callable[[], None]:
    check = on_table(table, 2)
    hook = {"before": check} if when == "before" else {"after": after_call(check)}
    return lambda: wrap(lakehouse.Lakehouse, "append", **hook)


POINTS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "received": lambda: wrap(Spool, "append", before=nth(4)),
    "spooled": lambda: wrap(Spool, "append", after=nth(4)),
    "before_commit": at_table("raw.quotes", "before"),
    "parquet_written": lambda: wrap(lakehouse, "append_files", before=nth(3)),
    "after_quotes": at_table("raw.quotes", "after"),
    "after_coverage": at_table("raw.coverage", "after"),
    "before_forgetting": lambda: wrap(Spool, "forget", before=nth(2)),
    "recovering": lambda: wrap(worker, "settle", after=nth(1)),
    "orphan_committed": lambda: wrap(Spool, "delete", before=nth(1)),
    "orphan_deleted": lambda: wrap(Spool, "delete", after=nth(1)),
    "handing_over": lambda: wrap(recording.Recording, "_has_successor", after=if_true),
}


def main() -> None:
    configure_logging()
    settings = Settings.model_validate_json(sys.argv[1])
    keep_ledger(Path(sys.argv[2]))
    POINTS[sys.argv[3]]()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    (exchange,) = settings.exchanges
    try:
        worker.run_worker(settings, exchange)
    except KeyboardInterrupt:
        sys.stdout.write("FLUSHED\n")


main()
