"""What can be started: by a schedule, a sensor, or a person.

The streaming job is an op job, because a run of it has no end and no partition; all others
materialize assets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from .assets.catalogue import key
from .assets.market import Scope
from .streams import record_quotes

CLASS = "lakehouse/class"  # what a run is: stream, tick, repair, catch-up or batch
BECAUSE = "lakehouse/because"  # why a sensor asked for a run, in one line
EXCHANGE = "exchange"
# A dead run must not block its schedule: past this many seconds the daemon ends it.
MAX_RUNTIME = "dagster/max_runtime"

BUILD_TODAY = "build_today"
REPORT_GAPS = "report_gaps"
REPAIR = "repair"
FINALIZE_YESTERDAY = "finalize_yesterday"
CATCH_UP = "catch_up"
SEAL_AND_COMPACT = "seal_and_compact"
CLEAN_FOLDERS = "clean_folders"

# Where the runbook says what to do when a run of the job fails; "" is any other job.
RUNBOOK = {
    "": "docs/runbook.md#a-run-failed",
    "stream_quotes": "docs/runbook.md#a-stream-failed",
    REPAIR: "docs/runbook.md#repair-failed",
    SEAL_AND_COMPACT: "docs/runbook.md#maintenance-failed",
    CLEAN_FOLDERS: "docs/runbook.md#maintenance-failed",
}

TICK_OPS = (
    "market__bars_1s",
    "market__bars_1s_ohlc_is_consistent",
    "market__bars_1m",
    "market__bars_1m_bars_match_quotes",
)
# Said by the schedule as well: Dagster gives a partitioned job's own config to single keys only.
TICK_CONFIG = {"ops": {op: {"config": {"scope": Scope.NEW.name}} for op in TICK_OPS}}
INDICATORS_OP = "market__indicators_1m"
HOURLY_CONFIG = {
    "ops": {op: {"config": {"scope": Scope.NEW.name}} for op in (*TICK_OPS, INDICATORS_OP)}
}


@dg.job(
    executor_def=dg.in_process_executor,
    tags={CLASS: "stream", "dagster/max_retries": "0"},
)
def stream_quotes() -> None:
    """Record one exchange until told to stop; its supervisor sensor keeps one such run alive."""
    record_quotes()


def asset_jobs() -> Sequence[Any]:
    """Return the jobs that build tables."""
    bars = [key("market.bars_1s"), key("market.bars_1m")]
    return [
        dg.define_asset_job(
            BUILD_TODAY,
            selection=dg.AssetSelection.assets(*bars),
            config=TICK_CONFIG,
            tags={CLASS: "tick", MAX_RUNTIME: "300"},
            description="A tick: add to the bars what came since the last one.",
        ),
        dg.define_asset_job(
            REPORT_GAPS,
            selection=dg.AssetSelection.assets(
                key("market.symbols"), *bars, key("market.gaps"), key("market.indicators_1m")
            ),
            config=HOURLY_CONFIG,
            tags={CLASS: "batch", MAX_RUNTIME: "900"},
            description="Say of today what was not seen, and why; then the indicators, which start "
            "again at each gap. A tick goes first, so that they end where the bars do.",
        ),
        dg.define_asset_job(
            REPAIR,
            selection=dg.AssetSelection.assets(
                key("market.gaps"), key("market.history_1m"), key("market.reconciliation")
            ),
            tags={CLASS: "repair", MAX_RUNTIME: "3000"},
            description="Look for gaps once more, fetch official minutes for them and for finished "
            "days while the feed still has them, then say what is filled, what is lost and how far "
            "bars agree.",
        ),
        dg.define_asset_job(
            FINALIZE_YESTERDAY,
            selection=dg.AssetSelection.assets(
                key("market.symbols"), *bars, key("market.gaps"), key("market.indicators_1m")
            ),
            tags={CLASS: "batch", MAX_RUNTIME: "7200"},
            description="Rebuild yesterday, and the days before that may have been judged too "
            "early, as a whole with all that came late, and check them.",
        ),
        dg.define_asset_job(
            CATCH_UP,
            selection=dg.AssetSelection.assets(
                key("market.symbols"),
                *bars,
                key("market.gaps"),
                key("market.indicators_1m"),
                key("market.reconciliation"),
            ),
            tags={CLASS: "catch-up", MAX_RUNTIME: "7200"},
            description="Rebuild finished days that are older than what they are built from.",
        ),
        dg.define_asset_job(
            SEAL_AND_COMPACT,
            selection=dg.AssetSelection.assets(key("maintenance.sealed_files")),
            tags={CLASS: "batch", MAX_RUNTIME: "3600"},
            description="Move closed hours into (symbol, day) files and merge small ones.",
        ),
        dg.define_asset_job(
            CLEAN_FOLDERS,
            selection=dg.AssetSelection.assets(key("maintenance.clean_folders")),
            tags={CLASS: "batch", MAX_RUNTIME: "3600"},
            description="Forget old snapshots and delete files that nothing refers to.",
        ),
    ]
