"""One run of a backfill as Dagster's run worker executes it: ``EXCHANGE FIRST LAST``."""

from __future__ import annotations

import sys
from datetime import date

import dagster as dg

from lakehouse_pipeline.definitions import defs
from lakehouse_pipeline.defs.jobs import CATCH_UP
from lakehouse_pipeline.defs.partitions import range_tags


def main(exchange: str, first: str, last: str) -> None:
    tags = range_tags(date.fromisoformat(first), date.fromisoformat(last), [exchange])
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def(CATCH_UP)  # every table that is built
        assert job.execute_in_process(instance=instance, tags=tags).success


if __name__ == "__main__":
    main(*sys.argv[1:])
