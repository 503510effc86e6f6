"""Keeping files few and large: not a table, but something an operator wants to see done."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from lakehouse_pipeline.defs.resources import LakehouseResource
from lakehouse_pipeline.market.windows import HOUR, floor

from .catalogue import OWNERS

MOVING = ("raw.quotes", "market.bars_1s", "market.bars_1m")  # tables that land hot
# An hour's last rows may still be in a worker's spool or in a tick that runs just now.
SETTLING = timedelta(minutes=10)


class MaintenanceConfig(dg.Config):
    before: str = Field(
        "", description="Seal hours that end at or before this UTC instant; the last whole hour."
    )

    def closed(self, now: datetime) -> datetime:
        """Return the instant before which hours are closed."""
        if self.before:
            return datetime.fromisoformat(self.before).replace(tzinfo=UTC)
        return floor(now - SETTLING, HOUR)


def maintenance_assets() -> list[dg.AssetsDefinition]:
    @dg.asset(
        key=["maintenance", "sealed_files"],
        group_name="maintenance",
        kinds={"iceberg"},
        owners=OWNERS,
        deps=[table.split(".") for table in MOVING],
        pool="maintain",
    )
    def sealed_files(
        context: dg.AssetExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource
    ) -> dg.MaterializeResult[None]:
        """Closed hours moved, row for row, into (symbol, day) files, and small files merged."""
        from lakehouse_pipeline.lake import maintenance  # noqa: PLC0415  # polars and pyiceberg

        before = config.closed(datetime.now(UTC))
        facts: dict[str, int | str] = {"before": f"{before:%Y-%m-%d %H:%M} UTC"}
        with lakehouse.open() as lake:
            for table in MOVING:
                for verb in (maintenance.seal, maintenance.compact):
                    done = verb(lake, table, before=before)
                    context.log.info("%s", done)
                    facts[f"{verb.__name__} {table}"] = (
                        f"{done.files_removed} files became {done.files_added}, {done.rows} rows"
                    )
        return dg.MaterializeResult(metadata=facts)

    return [sealed_files]
