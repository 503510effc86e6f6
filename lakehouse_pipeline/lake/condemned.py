"""What the cleaner remembers between two looks at a table: the files found that nothing refers to.

A file's age says nothing of how long readers have done without it: a day's file may be a year old
and be replaced a minute ago. So the cleaner notes when it first found a file unreachable. The note
is a small JSON file beside the metadata, written through the table's own storage: it works on
object stores and over processes. Lost or cut short, it is as if nothing had been found yet: files
wait another guard time, and what a person accepted must be accepted again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pyiceberg.table import Table

from .damage import UNDECODABLE
from .folder import CONDEMNED, has_notes


@dataclass(frozen=True, slots=True)
class Condemned:
    """Files by when they were first found unreachable, and metadata a person said is of no use."""

    since: Mapping[str, datetime] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()


def read_condemned(table: Table) -> Condemned:
    """Return what the last cleaning of *table* noted; nothing if it cannot be read."""
    location = table.location().rstrip("/")
    # A store may answer "denied" where a file is absent: only a listing tells that there is none.
    if not has_notes(table):
        return Condemned()
    try:
        with table.io.new_input(f"{location}/{CONDEMNED}").open() as stream:
            stored = json.loads(stream.read())
        return Condemned(
            {
                f"{location}/{path}": datetime.fromisoformat(since)
                for path, since in stored["condemned"].items()
            },
            frozenset(f"{location}/{path}" for path in stored["accepted"]),
        )
    except (FileNotFoundError, AttributeError, *UNDECODABLE):
        return Condemned()


def write_condemned(table: Table, condemned: Condemned) -> None:
    """Note *condemned* for the next cleaning, in the place of what was noted."""
    prefix = table.location().rstrip("/") + "/"
    stored = {
        "condemned": {
            path.removeprefix(prefix): since.isoformat()
            for path, since in sorted(condemned.since.items())
        },
        "accepted": sorted(path.removeprefix(prefix) for path in condemned.accepted),
    }
    with table.io.new_output(prefix + CONDEMNED).create(overwrite=True) as stream:
        stream.write(json.dumps(stored, indent=1).encode())
