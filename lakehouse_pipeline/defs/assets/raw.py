"""What the streams land. External: Dagster shows these tables, the workers write them."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from lakehouse_pipeline.market import columns

from .catalogue import attributes

# A stream reports at most once a minute; five silent minutes are worth a look.
FRESH = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(minutes=5), warn_window=timedelta(minutes=3)
)


def raw_assets(partitions: dg.MultiPartitionsDefinition) -> list[dg.AssetSpec]:
    return [
        dg.AssetSpec(
            description="Every quote update as it landed: the merged snapshot, which fields "
            "changed, its kind, and the writer and sequence that make it unique.",
            freshness_policy=FRESH,
            **attributes("raw.quotes", columns.QUOTES, partitions),
        ),
        dg.AssetSpec(
            description="Which session was alive, from when to when and how it ended, and which "
            "symbols it had: what tells a quiet market from a blind recorder.",
            freshness_policy=FRESH,
            **attributes("raw.coverage", columns.COVERAGE, partitions),
        ),
        dg.AssetSpec(
            description="Indicator values as TradingView's own studies streamed them; empty "
            "without a token.",
            **attributes("raw.indicators", columns.RAW_INDICATORS, partitions),
        ),
        dg.AssetSpec(
            description="Frames and updates that were refused, as received and with the reason: "
            "nothing is dropped silently. Empty is the normal state.",
            **attributes("raw.rejects", columns.REJECTS, partitions),
        ),
        dg.AssetSpec(
            description="What was asked of the feed's chart history and how far each answer "
            "reached: tells bars that do not exist from bars that were never asked for.",
            **attributes("raw.fetches", columns.FETCHES, partitions),
        ),
    ]
