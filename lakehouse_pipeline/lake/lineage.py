"""Does the catalog know all that a table's folder holds? Judged by who descends from whom.

Each metadata file names the one it was made from. One that another was made from was current once.
If neither leads to what is current now, the catalog has been set back, or was made anew, and the
data that those files lead to may be nowhere else. A commit that lost its race, or whose process was
killed, leaves a metadata file too, but nobody descends from it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress

from pyiceberg.table import Table

from lakehouse_pipeline.errors import TableDamaged

from .damage import decoding
from .folder import StoredFile, version
from .metadata import table_name

IN_DOUBT = (
    "Nothing is deleted. Was the catalog restored or made anew? Bring back its newest backup; if "
    "the files are of no use, say so: lakehouse maintain accept {table}."
)


def mend(table: Table) -> str:
    """Return what to do about a doubt."""
    return IN_DOUBT.format(table=table_name(table))


def doubt(
    table: Table,
    unreachable: Iterable[StoredFile],
    *,
    lasting: Collection[str],
    accepted: Collection[str] = (),
) -> str | None:
    """Return why the catalog may not know all that the folder of *table* holds; None if it does.

    Args:
        table: loaded after its files were listed.
        unreachable: files of its folder that it does not lead to.
        lasting: those of them that were unreachable at an earlier look too. Metadata older than
            the table's log may just be on its way out, deleted by the commit that dropped it.
        accepted: metadata that a person said is of no use.
    """
    folder, known = f"The folder of {table_name(table)}", version(table.metadata_location) or 0
    logged = [version(entry.metadata_file) for entry in table.metadata.metadata_log]
    oldest = min([known, *(number for number in logged if number is not None)])
    strangers = {
        file.path: number
        for file in unreachable
        if (number := version(file.path)) is not None and file.path not in accepted
    }
    for path, number in sorted(strangers.items()):
        uuid, parent = _origin(table, path)
        if uuid not in (None, str(table.metadata.table_uuid)):
            return f"{folder} holds {path} of another table, {uuid}."
        if number > known + 1:
            return f"{folder} holds {path}, newer than what the catalog knows, number {known}."
        if parent in strangers and (number > oldest or {path, parent} <= set(lasting)):
            return f"{folder} holds {parent}, which was current once and the catalog knows not of."
    return None


def _origin(table: Table, path: str) -> tuple[str | None, str | None]:
    """Return of which table a metadata file is and from which it was made; None if unknown."""
    with suppress(TableDamaged, FileNotFoundError), decoding(path):
        with table.io.new_input(path).open() as stream:
            metadata = json.loads(stream.read())
        log = metadata.get("metadata-log") or [{"metadata-file": None}]
        return str(metadata["table-uuid"]), log[-1]["metadata-file"]
    return None, None
