"""``lakehouse build`` in a process that kills itself at a named place of a table's commit.

The places are seams of the package, wrapped here: the package itself knows nothing of crashes.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import Any

from lakehouse_pipeline.cli import main
from lakehouse_pipeline.lake import lakehouse
from lakehouse_pipeline.lake.metadata import table_name
from lakehouse_pipeline.lake.remembering import RememberingCatalog


def die_at(owner: Any, name: str, table: str, *, after: bool = False) -> None:
    """Kill this process as it calls *name* for *table*, or right after."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args, **kwargs):
        # The table's name, or the table, is the first argument that is one.
        names = [arg if isinstance(arg, str) else _name(arg) for arg in args[:2]]
        if table in names and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if table in names:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def _name(arg: Any) -> str | None:
    return table_name(arg) if hasattr(arg, "metadata") else None


PLACES = {
    "never": lambda _table: None,
    "computed": lambda table: die_at(lakehouse.Lakehouse, "overwrite", table),
    "files written": lambda table: die_at(lakehouse, "write_files", table, after=True),
    "manifests written": lambda table: die_at(RememberingCatalog, "commit_table", table),
    "committed": lambda table: die_at(RememberingCatalog, "commit_table", table, after=True),
}


place, table, *arguments = sys.argv[1:]
PLACES[place](table)
sys.argv = ["lakehouse", *arguments]
main()
