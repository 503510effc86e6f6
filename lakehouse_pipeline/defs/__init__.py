"""Dagster, and nothing else: partitions, resources, assets, checks, jobs, sensors, schedules.

No rule about data lives here; a body finds its slice, calls ``build`` or ``ingest`` and says what
was done. Heavy imports (polars, pyiceberg) wait inside the bodies, because every run and every
tool pays for what loading the definitions imports.
"""
