"""What must be true after maintenance, looked up in the tables themselves."""

# No postponed annotations here: Dagster reads the context's class, not its name.
from datetime import UTC, datetime, timedelta

import dagster as dg

from lakehouse_pipeline.defs.assets.catalogue import key
from lakehouse_pipeline.defs.assets.maintenance import BY_TABLE, SETTLING
from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import HOUR, floor

MAX_BYTES = 256 << 20  # of rewritten files that one check reads again, a table
# What one cleaning leaves to its guard time is gone with the next, a day later.
ORPHANED = timedelta(days=3)
SHOWN = 20


def maintenance_checks() -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(asset=key("maintenance.sealed_files"), partitions_def=BY_TABLE, pool="maintain")
    def rows_are_identical(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> dg.AssetCheckResult:
        """Each seal and compaction took away and put there the same rows, by count and content."""
        from lakehouse_pipeline.lake import evidence  # noqa: PLC0415  # polars and pyiceberg

        judged, rows = 0, 0
        wrong: list[str] = []
        with lakehouse.open() as lake:
            for table in context.partition_keys:
                for rewrite in evidence.rewrites(lake, table, max_bytes=MAX_BYTES):
                    judged, rows = judged + 1, rows + sum(file.rows for file in rewrite.removed)
                    if not evidence.rows_are_identical(lake, table, rewrite):
                        wrong.append(f"{table}, snapshot {rewrite.snapshot_id}")
        return _result(wrong, rewrites_examined=judged, rows_examined=rows)

    @dg.asset_check(asset=key("maintenance.sealed_files"), partitions_def=BY_TABLE, pool="maintain")
    def small_files_are_few(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> dg.AssetCheckResult:
        """A closed day has one file per 128 MB, an open one few, and no closed hour is hot."""
        from lakehouse_pipeline.lake.evidence import partitions  # noqa: PLC0415  # as above

        before = floor(datetime.now(UTC) - SETTLING, HOUR)
        examined = 0
        wrong: list[str] = []
        with lakehouse.open() as lake:
            for table in context.partition_keys:
                found = partitions(lake, table, before=before)
                examined += found.height
                wrong += [
                    f"{table} {row['partition']}: {row['files']} files, {row['allowed']} allowed"
                    for row in found.filter(found["files"] > found["allowed"]).to_dicts()
                ]
        # Slower, not wrong: no reader sees another row by it.
        return _result(wrong, dg.AssetCheckSeverity.WARN, partitions_examined=examined)

    @dg.asset_check(
        asset=key("maintenance.clean_folders"), partitions_def=BY_TABLE, pool="maintain"
    )
    def no_orphans(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> dg.AssetCheckResult:
        """No old file is left that nothing refers to, and none is missing, damaged or foreign."""
        from lakehouse_pipeline.lake.cleaning import plan_cleaning  # noqa: PLC0415  # as above
        from lakehouse_pipeline.lake.health import examine_table  # noqa: PLC0415

        older_than = datetime.now(UTC) - ORPHANED
        wrong: list[str] = []
        orphans = 0
        with lakehouse.open() as lake:
            for table in context.partition_keys:
                findings = list(examine_table(lake, table, older_than))
                wrong += [str(finding) for finding in findings]
                if not findings:
                    left = plan_cleaning(lake, table, older_than=older_than).files
                    orphans += len(left)
                    wrong += [file.path for file in left]
        return _result(wrong, orphans=orphans)

    return [rows_are_identical, small_files_are_few, no_orphans]


def _result(
    wrong: list[str],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **figures: int,
) -> dg.AssetCheckResult:
    shown = dg.MetadataValue.md("\n\n".join(wrong[:SHOWN]))
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=severity,
        metadata={
            **figures,
            "offenders": len(wrong),
            **({"first_offenders": shown} if wrong else {}),
        },
    )
