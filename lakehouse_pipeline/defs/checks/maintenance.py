"""What must be true after maintenance, looked up in the tables themselves."""

# No postponed annotations here: Dagster reads the context's class, not its name.
from datetime import UTC, datetime, timedelta

import dagster as dg

from lakehouse_pipeline.defs.assets.catalogue import key
from lakehouse_pipeline.defs.assets.maintenance import BY_TABLE, SETTLING
from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import HOUR, floor

from .verdicts import Verdict, Verdicts, check, judge

MAX_BYTES = 256 << 20  # of rewritten files that one check reads again, a table
# What one cleaning condemns the next or the one after it deletes, a day later each.
ORPHANED = timedelta(days=3)


def maintenance_checks() -> list[dg.AssetChecksDefinition]:
    @check(key("maintenance.sealed_files"), BY_TABLE, pool="maintain")
    def rows_are_identical(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Each seal and compaction took away and put there the same rows, by count and content."""
        from lakehouse_pipeline.lake import evidence  # noqa: PLC0415  # polars and pyiceberg

        with lakehouse.open() as lake:

            def compare(table: str) -> Verdict:
                judged = list(evidence.rewrites(lake, table, max_bytes=MAX_BYTES))
                rows = sum(file.rows for rewrite in judged for file in rewrite.removed)
                wrong = tuple(
                    f"snapshot {rewrite.snapshot_id}"
                    for rewrite in judged
                    if not evidence.rows_are_identical(lake, table, rewrite)
                )
                figures = {"rewrites_examined": len(judged), "rows_examined": rows}
                kept = len(lake.load(table).metadata.snapshots)
                said = f"Nothing to examine: none of {kept} kept snapshots is a rewrite."
                return Verdict(len(wrong), figures, wrong, said=None if judged else said)

            yield from judge(context, compare)

    @check(key("maintenance.sealed_files"), BY_TABLE, pool="maintain")
    def small_files_are_few(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> Verdicts:
        """A closed day has one file per 128 MB, an open one few, and no closed hour is hot."""
        from lakehouse_pipeline.lake.evidence import partitions  # noqa: PLC0415  # as above

        before = floor(datetime.now(UTC) - SETTLING, HOUR)
        with lakehouse.open() as lake:

            def count(table: str) -> Verdict:
                found = partitions(lake, table, before=before)
                wrong = tuple(
                    f"{row['partition']}: {row['files']} files, {row['allowed']} allowed"
                    for row in found.filter(found["files"] > found["allowed"]).to_dicts()
                )
                return Verdict(len(wrong), {"partitions_examined": found.height}, wrong)

            # Slower, not wrong: no reader sees another row by it.
            yield from judge(context, count, severity=dg.AssetCheckSeverity.WARN)

    @check(key("maintenance.clean_folders"), BY_TABLE, pool="maintain")
    def no_orphans(
        context: dg.AssetCheckExecutionContext, lakehouse: LakehouseResource
    ) -> Verdicts:
        """No old file is left that nothing refers to, and none is missing, damaged or foreign."""
        from lakehouse_pipeline.lake.cleaning import plan_cleaning  # noqa: PLC0415  # as above
        from lakehouse_pipeline.lake.health import examine_table  # noqa: PLC0415

        now = datetime.now(UTC)
        with lakehouse.open() as lake:

            def look(table: str) -> Verdict:
                findings = list(examine_table(lake, table))
                # Of a damaged table no plan can be made.
                plan = () if findings else plan_cleaning(lake, table, now=now, guard=ORPHANED).files
                wrong = (*map(str, findings), *(file.path for file in plan))
                return Verdict(len(wrong), {"orphans": len(plan)}, wrong)

            yield from judge(context, look)

    return [rows_are_identical, small_files_are_few, no_orphans]
