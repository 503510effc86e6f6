"""An SQL catalog that reads a metadata file once: the file a pointer names never changes.

The library reads and parses it for each look at a table, and again for each attempt to commit; with
fifty snapshots that is a third of a small commit. Here the pointer is asked for each time, so other
processes' commits are seen at once, and the metadata is read only if it has moved.
"""

from __future__ import annotations

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier
from sqlalchemy import text

POINTER = text(
    "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = :catalog"
    " AND table_namespace = :namespace AND table_name = :table"
)


class RememberingCatalog(SqlCatalog):
    """The library's catalog; tables are the same. Threads may share it."""

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._known: dict[Identifier, Table] = {}

    def pointer(self, identifier: str | Identifier) -> str | None:
        """Return where the metadata of a table is now; None if there is no such table."""
        values = {
            "catalog": self.name,
            "namespace": self.namespace_to_string(self.namespace_from(identifier)),
            "table": self.table_name_from(identifier),
        }
        with self.engine.connect() as connection:
            location = connection.execute(POINTER, values).scalar()
        return None if location is None else str(location)

    def load_table(self, identifier: str | Identifier) -> Table:
        """Return the table as it is now; a new object each time, because a commit updates it."""
        name = self.identifier_to_tuple(identifier)
        known, location = self._known.get(name), self.pointer(identifier)
        if known is None or known.metadata_location != location:
            known = self._known[name] = self.read_table(identifier)
        return Table(known.name(), known.metadata, known.metadata_location, known.io, self)

    def read_table(self, identifier: str | Identifier) -> Table:
        """Return the table as its metadata file says, even if that was read before."""
        return super().load_table(identifier)

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Commit *updates* and remember what came of it."""
        done = super().commit_table(table, requirements, updates)
        self._known[table.name()] = Table(
            table.name(), done.metadata, done.metadata_location, table.io, self
        )
        return done
