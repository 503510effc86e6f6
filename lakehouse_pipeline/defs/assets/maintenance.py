"""Keeping files few and folders clean: not tables, but work an operator wants to see done.

Partitioned by table, so that one can be mended alone; a schedule's run takes all of them.
"""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.errors import TableDamaged
from lakehouse_pipeline.market.windows import HOUR, floor

from .catalogue import OWNERS, key

if TYPE_CHECKING:
    from lakehouse_pipeline.lake.lakehouse import Lakehouse

# As in ``lake.tables``, which takes too long to import for this; a test keeps them alike.
TABLES = (
    "raw.quotes",
    "raw.coverage",
    "raw.indicators",
    "raw.rejects",
    "market.bars_1s",
    "market.bars_1m",
    "market.history_1m",
    "raw.fetches",
    "market.gaps",
    "market.indicators_1m",
    "market.reconciliation",
    "market.symbols",
)
MOVING = ("raw.quotes", "market.bars_1s", "market.bars_1m")  # upstream in the graph
# An hour's last rows may still be in a worker's spool or in a tick that runs just now.
SETTLING = timedelta(minutes=10)
BY_TABLE = dg.StaticPartitionsDefinition(list(TABLES))
MIB = 1 << 20
Figures = dict[str, int | float | dg.MetadataValue]


class MaintenanceConfig(dg.Config):
    before: str = Field(
        "", description="Seal hours that end at or before this UTC instant; the last whole hour."
    )

    def closed(self, now: datetime) -> datetime:
        """Return the instant before which hours are closed."""
        if self.before:
            return datetime.fromisoformat(self.before).replace(tzinfo=UTC)
        return floor(now - SETTLING, HOUR)


class CleaningConfig(dg.Config):
    guard_hours: float = Field(
        24.0,
        ge=1.0,
        description="A file is deleted so long after it was found that nothing refers to it.",
    )


def maintenance_assets() -> list[dg.AssetsDefinition]:
    @dg.asset(
        key=["maintenance", "sealed_files"],
        group_name="maintenance",
        kinds={"iceberg"},
        owners=OWNERS,
        deps=[
            dg.AssetDep(key(table), partition_mapping=dg.AllPartitionMapping()) for table in MOVING
        ],
        partitions_def=BY_TABLE,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="maintain",
    )
    def sealed_files(
        context: dg.AssetExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource
    ) -> None:
        """Closed hours moved, row for row, into (symbol, day) files, and small files merged.

        Files that cannot be read are left out and named; ``lakehouse doctor`` says the mend.
        A day on which quotes and bars agree then gets the tag that time travel goes to.
        """
        from lakehouse_pipeline.build.upkeep import keep_small, tag_days  # noqa: PLC0415  # polars and pyiceberg

        now = datetime.now(UTC)
        before = config.closed(now)
        with lakehouse.open() as lake:

            def seal_and_merge(table: str) -> Figures:
                looked, sizes = look(lake, table, before), sizes_of(lake, table)
                sealed, merged = keep_small(lake, table, before=before)
                damaged = sorted({*sealed.damaged, *merged.damaged})
                return {
                    "rows_sealed": sealed.rows,
                    "rows_merged": merged.rows,
                    "files_removed": sealed.files_removed + merged.files_removed,
                    "files_added": sealed.files_added + merged.files_added,
                    "backlog_files": sealed.backlog_files + merged.backlog_files,
                    "damaged_files": len(damaged),
                    **(named("left_out", damaged) if damaged else {}),
                    **before_and_after(looked, look(lake, table, before)),
                    "file_sizes": drawn(sizes, sizes_of(lake, table)),
                }

            maintain(context, seal_and_merge)
            for day in tag_days(lake, now=now):
                context.log.info("%s can be travelled to", day)

    @dg.asset(
        key=["maintenance", "clean_folders"],
        group_name="maintenance",
        kinds={"iceberg"},
        owners=OWNERS,
        deps=[["maintenance", "sealed_files"]],
        partitions_def=BY_TABLE,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool="maintain",
    )
    def clean_folders(
        context: dg.AssetExecutionContext, config: CleaningConfig, lakehouse: LakehouseResource
    ) -> None:
        """Old snapshots forgotten and files that nothing refers to deleted, tags kept.

        A file goes a guard time after a run found it so: a reader may have planned it before.
        A table that is damaged, or that its folder knows more of than the catalog, is left alone.
        """
        from lakehouse_pipeline.ingest.lost_writers import forget_lost_writers  # noqa: PLC0415  # as above
        from lakehouse_pipeline.lake.cleaning import (  # noqa: PLC0415
            apply_cleaning,
            checked_guard,
            plan_cleaning,
        )
        from lakehouse_pipeline.lake.maintenance import expire  # noqa: PLC0415

        now = datetime.now(UTC)
        guard = checked_guard(timedelta(hours=config.guard_hours))
        with lakehouse.open() as lake:

            def expire_and_clean(table: str) -> Figures:
                looked, sizes = look(lake, table, now), sizes_of(lake, table)
                forget_lost_writers(lake, table, today=now.date())
                expired = expire(lake, table)
                cleaned = apply_cleaning(lake, plan_cleaning(lake, table, now=now, guard=guard))
                return {
                    "snapshots_forgotten": expired,
                    "files_deleted": cleaned.files,
                    "mib_deleted": round(cleaned.bytes / MIB, 3),
                    "files_waiting": cleaned.waiting,
                    **before_and_after(looked, look(lake, table, now)),
                    "file_sizes": drawn(sizes, sizes_of(lake, table)),
                }

            maintain(context, expire_and_clean)

    return [sealed_files, clean_folders]


def maintain(context: dg.AssetExecutionContext, work: Callable[[str], Figures]) -> None:
    """Do *work* for each table of the run and show its figures; a damaged one stops no other.

    Raises:
        dagster.Failure: naming the tables that are damaged and the mend.
    """
    damaged: list[TableDamaged] = []
    for table in context.partition_keys:
        try:
            context.add_asset_metadata(work(table), partition_key=table)
        except TableDamaged as error:
            damaged.append(error)
    if damaged:
        raise dg.Failure("\n".join(map(str, damaged)), allow_retries=False)


def look(lake: "Lakehouse", table: str, before: datetime) -> dict[str, int | float]:
    """Return the figures of *table* that maintenance changes."""
    from lakehouse_pipeline.lake.evidence import partitions  # noqa: PLC0415  # as above

    found = partitions(lake, table, before=before)
    hot, sealed = found.filter("hot"), found.filter(~found["hot"])
    most = sealed["files"].max()
    return {
        "files": int(found["files"].sum()),
        "hot_files": int(hot["files"].sum()),
        "most_files_a_partition": most if isinstance(most, int) else 0,
        "mib": round(int(found["bytes"].sum()) / MIB, 3),
        "snapshots": len(lake.load(table).metadata.snapshots),
        "tags": len(lake.tags(table)),
    }


def before_and_after(before: dict[str, int | float], after: dict[str, int | float]) -> Figures:
    """Return a table of both, and the figures after, which the UI plots over time."""
    lines = [f"| {name} | {was} | {after[name]} |" for name, was in before.items()]
    table = "\n".join(["| | before | after |", "|---|---:|---:|", *lines])
    return {"before_and_after": dg.MetadataValue.md(table), **after}


def named(title: str, paths: list[str]) -> Figures:
    return {title: dg.MetadataValue.md("\n\n".join(paths))}


def sizes_of(lake: "Lakehouse", table: str) -> list[int]:
    return [file.bytes for file in lake.live_files(table)]


def drawn(before: list[int], after: list[int]) -> dg.MetadataValue:
    """Return a picture of how many files of each size there were and are."""
    from lakehouse_pipeline import sketches  # noqa: PLC0415  # polars

    svg = sketches.file_sizes(before, after)
    return dg.MetadataValue.md(sketches.markdown(svg, "files by size, before and after"))
