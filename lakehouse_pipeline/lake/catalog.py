"""Opening the catalog and bringing its tables to the model of ``tables``.

Several processes may do so at once on an empty folder: everything here is done only if missing and
done again if somebody else was first. Also here: what a foreign exception means in our terms.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import stamina
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    RESTError,
    TableAlreadyExistsError,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from lakehouse_pipeline.errors import (
    CatalogTooNew,
    CatalogUnreachable,
    StateDirectoryError,
    TableDamaged,
)
from lakehouse_pipeline.settings import Settings

from .commit import add_specs
from .damage import decoding
from .metadata import retried
from .remembering import RememberingCatalog
from .storage import DurableFileIO
from .tables import SCHEMA_VERSION, SCHEMA_VERSION_PROPERTY, TABLES, TableSpec

NAME = "lakehouse"
CATALOG_FILE = "catalog.db"  # the embedded catalog, in the state folder
LOCK_SECONDS = 30  # how long a process waits for another's catalog transaction
DISK_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


@contextmanager
def typed_errors(doing: str) -> Iterator[None]:
    """Raise what storage and catalog raise as our own errors, one line each.

    Raises:
        CatalogUnreachable: the catalog did not answer; a commit under way may have landed.
        StateDirectoryError: the disk is read-only, full or not ours.
        TableDamaged: a file the table needs is missing.
    """
    try:
        yield
    except (SQLAlchemyError, RESTError) as error:
        raise _unreachable(doing, getattr(error, "orig", None) or error) from error
    except FileNotFoundError as error:
        raise TableDamaged(
            f"A file needed while {doing} is missing: {error.filename or error}.",
            mend="Restore it from a backup, or rebuild the table.",
        ) from error
    except OSError as error:
        if error.errno not in DISK_ERRORS:  # none: from the network, by requests or by pyarrow
            raise _unreachable(doing, error) from error
        place = f" on {error.filename}" if error.filename else ""
        raise StateDirectoryError(
            f"Storage failed while {doing}: {error.strerror}{place}.",
            mend="Free space or make the folder writable, or set LAKEHOUSE_STATE_DIR.",
        ) from error


def _unreachable(doing: str, cause: BaseException) -> CatalogUnreachable:
    first_line = (str(cause) or type(cause).__name__).splitlines()[0]
    return CatalogUnreachable(
        f"The catalog or its storage failed while {doing}: {first_line}.",
        mend="Check it, its disk, and LAKEHOUSE_LAKE__CATALOG_URI or LAKEHOUSE_STATE_DIR.",
    )


def open_catalog(settings: Settings) -> Catalog:
    """Return the catalog of *settings*, made ready if it is new.

    Raises:
        CatalogUnreachable: if it does not answer.
        StateDirectoryError: if the state folder cannot be written.
    """
    lake = settings.lake
    properties = {
        "py-io-impl": f"{DurableFileIO.__module__}.{DurableFileIO.__name__}",
        **lake.properties,
    }
    with typed_errors("opening the catalog"):
        if lake.catalog_type == "rest":
            # Its import costs a tenth of a second, which a local lake does not need.
            from pyiceberg.catalog.rest import RestCatalog  # noqa: PLC0415  # see above

            if lake.warehouse:
                properties["warehouse"] = lake.warehouse
            return RestCatalog(NAME, uri=lake.catalog_uri, **properties)
        folder = settings.state_dir.absolute()
        properties["warehouse"] = lake.warehouse or str(folder / "warehouse")
        properties.setdefault("pool_pre_ping", "true")  # a restarted server is connected to anew
        return _open_sql(lake.catalog_uri or _sqlite_uri(folder / CATALOG_FILE), properties)


def _sqlite_uri(path: Path) -> str:
    # A file: URI, so that a question mark in a folder's name is not taken for the query.
    return f"sqlite:///file:{quote(str(path))}?timeout={LOCK_SECONDS}&uri=true"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StateDirectoryError(
            f"{folder} is not a folder.", mend="Move it away or set LAKEHOUSE_STATE_DIR."
        ) from error


def _open_sql(uri: str, properties: dict[str, str]) -> Catalog:
    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database:
        file = Path(unquote(url.database.removeprefix("file:")))
        _make_folder(file.parent)
        with _locked(file.with_suffix(".lock")):
            catalog = _create_sql(uri, properties)
            with catalog.engine.connect() as connection:
                # Kept in the database file; readers then never wait for a writer.
                if connection.execute(text("PRAGMA journal_mode")).scalar() != "wal":
                    connection.execute(text("PRAGMA journal_mode=wal"))
        return catalog
    return _create_sql(uri, properties)


# Two processes creating the catalog's own tables at once: the second is told that they exist.
@stamina.retry(on=(IntegrityError, ProgrammingError), attempts=5, wait_initial=0.1)
def _create_sql(uri: str, properties: dict[str, str]) -> RememberingCatalog:
    return RememberingCatalog(NAME, uri=uri, **properties)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare_tables(catalog: Catalog) -> None:
    """Create the namespaces and tables that are missing and bring older tables up to date.

    Raises:
        CatalogTooNew: if a table was written by a newer version of this project.
    """
    with typed_errors("preparing the tables"):
        for namespace in sorted({name.partition(".")[0] for name in TABLES}):
            _create_namespace(catalog, namespace)
        for spec in TABLES.values():
            _bring_up_to_date(_load_or_create(catalog, spec), spec)


def _create_namespace(catalog: Catalog, namespace: str) -> None:
    if catalog.namespace_exists(namespace):
        return
    try:
        catalog.create_namespace(namespace)
    except (NamespaceAlreadyExistsError, IntegrityError):
        return  # another process was first


# A metadata file may be superseded and deleted between reading the pointer and opening it.
@stamina.retry(on=FileNotFoundError, attempts=4, wait_initial=0.02)
def load_table(catalog: Catalog, name: str) -> Table:
    """Return the table as it is now.

    Raises:
        TableDamaged: if its metadata cannot be read.
    """
    with decoding(f"The metadata of {name}"):
        return catalog.load_table(name)


def read_table(catalog: Catalog, name: str) -> Table:
    """Return the table as its metadata file says now, even if that was read before.

    Raises:
        TableDamaged: as ``load_table``.
    """
    if not isinstance(catalog, RememberingCatalog):
        return load_table(catalog, name)
    with decoding(f"The metadata of {name}"):
        return catalog.read_table(name)


def _load_or_create(catalog: Catalog, spec: TableSpec) -> Table:
    try:
        return load_table(catalog, spec.name)
    except NoSuchTableError:
        pass
    try:
        return catalog.create_table(
            spec.name,
            schema=spec.schema,
            partition_spec=spec.specs[0],
            sort_order=spec.sort_order,
            properties=spec.properties,
        )
    except TableAlreadyExistsError:
        return catalog.load_table(spec.name)  # another process was first


@retried
def _bring_up_to_date(table: Table, spec: TableSpec) -> None:
    table.refresh()
    version = int(table.properties.get(SCHEMA_VERSION_PROPERTY, "0"))
    if version > SCHEMA_VERSION:
        raise CatalogTooNew(
            f"Table {spec.name} has schema version {version}; this program knows {SCHEMA_VERSION}.",
            mend="Upgrade lakehouse-pipeline on this machine, or use another LAKEHOUSE_STATE_DIR.",
        )
    _add_columns(table, spec.schema)
    add_specs(table, spec.specs)
    wanted = {name: value for name, value in spec.properties.items() if name != "format-version"}
    if wanted.items() - table.properties.items():
        with table.transaction() as transaction:
            transaction.set_properties(wanted)


def _add_columns(table: Table, schema: Schema) -> None:
    missing = [name for name in schema.column_names if name not in table.schema().column_names]
    if missing:
        with table.update_schema() as update:
            for name in missing:
                field = schema.find_field(name)
                update.add_column(name, field.field_type, doc=field.doc)
