"""What must be true of the loss budget; the offenders shown are the gaps and the worst minutes."""

# No postponed annotations here: Dagster reads a Config parameter's class, not its name.
import dagster as dg

from lakehouse_pipeline.defs.assets.catalogue import key
from lakehouse_pipeline.defs.assets.repair import POOL
from lakehouse_pipeline.defs.resources import LakehouseResource

from .bars import ProofConfig, verdicts
from .verdicts import Verdicts, check


def repair_checks(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    @check(key("market.reconciliation"), partitions, pool=POOL)
    def no_open_gaps(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Every gap that history can still fill is filled."""
        from lakehouse_pipeline.build import reconciliation  # noqa: PLC0415  # polars and pyiceberg

        yield from verdicts(context, config, lakehouse, reconciliation.no_open_gaps)

    @check(key("market.reconciliation"), partitions, pool=POOL)
    def reconciliation_is_within_tolerance(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """Streamed minutes agree with official ones; if not, the worst minutes are listed."""
        from lakehouse_pipeline.build import reconciliation  # noqa: PLC0415  # polars and pyiceberg

        statement = reconciliation.reconciliation_is_within_tolerance
        yield from verdicts(context, config, lakehouse, statement)

    @check(key("market.reconciliation"), partitions, pool=POOL)
    def gaps_hold_what_was_missed(
        context: dg.AssetCheckExecutionContext, config: ProofConfig, lakehouse: LakehouseResource
    ) -> Verdicts:
        """History filled each gap with the volume the counter missed; the worst are listed.

        A warning: what the vendor does not have, nobody here can mend.
        """
        from lakehouse_pipeline.build import reconciliation  # noqa: PLC0415  # polars and pyiceberg

        statement = reconciliation.gaps_hold_what_was_missed
        warning = dg.AssetCheckSeverity.WARN
        yield from verdicts(context, config, lakehouse, statement, severity=warning)

    return [gaps_hold_what_was_missed, no_open_gaps, reconciliation_is_within_tolerance]
