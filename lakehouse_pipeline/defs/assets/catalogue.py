"""What the UI says of every table besides its description: key, group, columns, owners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from lakehouse_pipeline.market.columns import Column

OWNERS = ["team:lakehouse"]
# What is said about the market's data; grouped apart from it, while a key stays its table's name.
QUALITY = {"market.gaps", "market.reconciliation"}
STREAMED = ("raw.quotes", "raw.coverage", "raw.indicators", "raw.rejects")  # by workers
POOL = "build"  # dagster.yaml says how many runs may build at once


def key(table: str) -> dg.AssetKey:
    """Return the asset key of the Iceberg identifier *table* (``market.bars_1s``)."""
    return dg.AssetKey(table.split("."))


def group(table: str) -> str:
    """Return the box of the lineage graph that *table* is in."""
    return "quality" if table in QUALITY else table.partition(".")[0]


def attributes(
    table: str, columns: Sequence[Column], partitions: dg.MultiPartitionsDefinition
) -> dict[str, Any]:
    """Return what an asset and an external asset of *table* have in common."""
    described = [dg.TableColumn(name, kind.value, doc) for name, kind, doc in columns]
    return {
        "key": key(table),
        "group_name": group(table),
        "kinds": {"iceberg", "polars"},
        "owners": OWNERS,
        "partitions_def": partitions,
        "metadata": {
            "dagster/table_name": table,
            "dagster/column_schema": dg.TableSchema(described),
        },
    }


def built(
    table: str,
    columns: Sequence[Column],
    partitions: dg.MultiPartitionsDefinition,
    *,
    deps: Sequence[str],
    pool: str = POOL,
) -> Callable[[Callable[..., None]], dg.AssetsDefinition]:
    """Decorate the body that builds *table* from the tables *deps*.

    A range of partitions is one run, which works through it day by day.
    """
    decorate: Callable[[Callable[..., None]], dg.AssetsDefinition] = dg.asset(
        deps=[key(name) for name in deps],
        pool=pool,
        backfill_policy=dg.BackfillPolicy.single_run(),
        **attributes(table, columns, partitions),
    )
    return decorate
