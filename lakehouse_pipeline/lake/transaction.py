"""A transaction whose staged metadata is cheap to look at.

A producer looks at it some 17 times a commit. The library then applies the staged updates anew and
copies the outcome, every snapshot of it, to the last leaf; half of a commit was spent in that, and
it grew with the snapshots kept. Here the updates are applied once for each change of them and
nothing is copied: metadata is never changed in place, here or in the library.

What is committed is made by the catalog, from these updates and its own metadata.
"""

from __future__ import annotations

from typing import Any

from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import _apply_table_update, _TableMetadataUpdateContext


class StagedTransaction(Transaction):
    """The library's transaction; only how its metadata is computed differs."""

    _staged: tuple[TableMetadata, Any, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if self._staged is None or self._staged[0] is not base or self._staged[1] is not updates:
            staged, context = base, _TableMetadataUpdateContext()
            for update in updates:
                staged = _apply_table_update(update, staged, context)
            self._staged = base, updates, staged
        return self._staged[2]
