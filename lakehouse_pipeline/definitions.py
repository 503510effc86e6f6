"""The deployment on one page: what Dagster loads.

Loading needs no network, feed or lake; it reads the settings, because exchanges are partitions and
each has its sensor.
"""

from __future__ import annotations

import warnings

import dagster as dg

from .defs.alerts import build_failure_alert
from .defs.assets.indicators import indicator_assets
from .defs.assets.maintenance import maintenance_assets
from .defs.assets.market import market_assets
from .defs.assets.raw import raw_assets
from .defs.assets.repair import repair_assets
from .defs.assets.symbols import symbol_assets
from .defs.catchup import build_catch_up
from .defs.checks.bars import bar_checks, day_checks
from .defs.checks.indicators import indicator_checks
from .defs.checks.maintenance import maintenance_checks
from .defs.checks.repair import repair_checks
from .defs.jobs import asset_jobs, stream_quotes
from .defs.partitions import by_date_and_exchange
from .defs.resources import LakehouseResource, SettingsResource
from .defs.retention import forget_runs
from .defs.schedules import build_schedules
from .defs.sensors import build_supervisors
from .settings import Settings, load_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """Return everything Dagster runs for the exchanges of *settings*."""
    # Backfill policies and partitioned checks carry these marks; each run would log them.
    for mark in (dg.BetaWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=mark)
    exchanges = list(settings.exchanges)
    partitions = by_date_and_exchange(exchanges)
    state_dir = settings.resolved().state_dir
    return dg.Definitions(
        assets=[
            *raw_assets(partitions),
            *symbol_assets(partitions),
            *market_assets(partitions),
            *repair_assets(partitions),
            *indicator_assets(partitions),
            *maintenance_assets(),
        ],
        asset_checks=[
            *bar_checks(partitions),
            *day_checks(partitions),
            *repair_checks(partitions),
            *indicator_checks(partitions),
            *maintenance_checks(),
        ],
        jobs=[stream_quotes, *asset_jobs(), forget_runs],
        schedules=build_schedules(exchanges, state_dir) if exchanges else [],
        sensors=[
            *build_supervisors(exchanges, state_dir),
            build_catch_up(exchanges, state_dir),
            build_failure_alert(settings),
        ],
        resources={
            "settings": SettingsResource(),
            "lakehouse": LakehouseResource(settings=SettingsResource()),
        },
        executor=dg.in_process_executor,  # a process for each step would cost seconds a step
    )


defs = build_definitions(load_settings())
