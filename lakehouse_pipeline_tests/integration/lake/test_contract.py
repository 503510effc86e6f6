"""The private names of pyiceberg that commits stand on; a new minor may move them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyiceberg
import pytest
from pyiceberg.avro.file import AvroFile
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import ManifestEntry, ManifestWriter
from pyiceberg.table import Transaction
from pyiceberg.table.update import AddSnapshotUpdate, SetPropertiesUpdate, SetSnapshotRefUpdate
from pyiceberg.table.update.snapshot import _FastAppendFiles, _SnapshotProducer
from pyiceberg.types import PrimitiveType, TimestamptzType

import lakehouse_pipeline.lake
from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.maintenance import seal
from lakehouse_pipeline.lake.manifests import EPOCH, read_manifest
from lakehouse_pipeline.lake.tables import HOT, SEALED, TABLES
from lakehouse_pipeline.lake.transaction import StagedTransaction

PACKAGE = Path(lakehouse_pipeline.lake.__file__).parent


def test_the_minor_version_is_the_one_that_was_read() -> None:
    assert pyiceberg.__version__.startswith("0.12.")


@pytest.mark.parametrize(
    "name",
    ["_manifests", "_summary", "_validate_concurrency", "_commit"],
)
def test_the_producer_calls_what_is_overridden(name: str) -> None:
    callers = inspect.getsource(_SnapshotProducer._commit) + inspect.getsource(
        Transaction._rebuild_snapshot_updates
    )

    assert f".{name}(" in callers
    assert callable(getattr(_FastAppendFiles, name))


@pytest.mark.parametrize(
    "name",
    ["_clean_all_uncommitted", "new_manifest_writer", "fetch_manifest_entry"],
)
def test_the_producer_has_what_is_called(name: str) -> None:
    assert callable(getattr(_FastAppendFiles, name))


@pytest.mark.parametrize(
    "name",
    [
        "_io",
        "_snapshot_id",
        "_parent_snapshot_id",
        "_starting_snapshot_id",
        "_added_data_files",
        "_deleted_data_files",
    ],
)
def test_the_producer_keeps_its_state_under_the_names_used(name: str) -> None:
    assert f"self.{name}" in inspect.getsource(_SnapshotProducer.__init__)


def test_a_retry_asks_the_producer_before_it_writes_manifests_again() -> None:
    source = inspect.getsource(Transaction._rebuild_snapshot_updates)

    assert source.index("_refresh_for_retry") < source.index("_validate_concurrency")
    assert source.index("_validate_concurrency") < source.index("producer._commit()")


def test_staged_metadata_depends_on_what_is_memoized_alone() -> None:
    source = inspect.getsource(Transaction.table_metadata.fget)  # type: ignore[arg-type, attr-defined]  # a property

    assert "update_table_metadata(self._table.metadata, self._updates)" in source


def test_an_added_entry_may_keep_its_sequence_number() -> None:
    assert "sequence_number" in inspect.getsource(ManifestWriter.add)
    assert callable(ManifestEntry.from_args)


def test_staged_metadata_is_what_the_library_would_stage(
    lake: Lakehouse, quotes: Callable[..., pl.DataFrame]
) -> None:
    lake.append("raw.quotes", quotes())
    table = lake.load("raw.quotes")
    ours, theirs = StagedTransaction(table), Transaction(table)
    before = table.metadata.model_dump_json()
    head = table.metadata.snapshots[-1]
    following = head.model_copy(update={"snapshot_id": 7, "sequence_number": 2})
    for updates in (
        (SetPropertiesUpdate(updates={"a": "b"}),),
        (
            AddSnapshotUpdate(snapshot=following),
            SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=7),
        ),
    ):
        ours._stage(updates)
        theirs._stage(updates)

        # The library also stamps the time; so does the catalog, when it commits.
        staged, expected = (
            each.table_metadata.model_dump(exclude={"last_updated_ms"}) for each in (ours, theirs)
        )
        assert staged == expected
        assert ours.table_metadata is ours.table_metadata
    assert table.metadata.model_dump_json() == before


def test_a_manifest_is_read_as_the_library_reads_it(
    lake: Lakehouse, quotes: Callable[..., pl.DataFrame]
) -> None:
    lake.append("raw.quotes", quotes())
    seal(lake, "raw.quotes", before=datetime(2100, 1, 1, tzinfo=UTC))
    lake.append("raw.quotes", quotes())
    table = lake.load("raw.quotes")
    head = table.current_snapshot()
    assert head is not None
    manifests = head.manifests(table.io)
    assert {manifest.partition_spec_id for manifest in manifests} == {HOT, SEALED}
    for manifest in manifests:
        ours = read_manifest(manifest, TABLES["raw.quotes"], table.schema(), table.io)
        theirs = manifest.fetch_manifest_entry(table.io)

        for file, entry in zip(ours, theirs, strict=True):
            assert (file.path, file.rows) == (
                entry.data_file.file_path,
                entry.data_file.record_count,
            )
            assert file.bytes == entry.data_file.file_size_in_bytes
            assert file.sequence == entry.sequence_number
            assert file.spec_id == entry.data_file.spec_id
            for column, told in (
                ("exchange", file.exchanges),
                ("symbol", file.symbols),
                ("event_time", file.times),
                ("received_at", file.received),
            ):
                field = table.schema().find_field(column)
                kind = field.field_type
                assert isinstance(kind, PrimitiveType)
                bounds = (entry.data_file.lower_bounds, entry.data_file.upper_bounds)
                values: list[Any] = [from_bytes(kind, bound[field.field_id]) for bound in bounds]
                if isinstance(kind, TimestamptzType):
                    values = [EPOCH + timedelta(microseconds=value) for value in values]
                assert told == tuple(values)


def test_the_library_opens_a_manifest_in_the_steps_that_are_repeated() -> None:
    source = inspect.getsource(AvroFile.__enter__)

    assert "self._read_header()" in source
    assert "self.reader = resolve_reader(" in source
    assert '"avro.schema"' in inspect.getsource(inspect.getmodule(AvroFile))  # type: ignore[arg-type]


def test_only_two_modules_use_private_names() -> None:
    users = {
        path.name
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("pyiceberg")
        and any(alias.name.startswith("_") for alias in node.names)
    }

    assert users == {"commit.py", "transaction.py"}
