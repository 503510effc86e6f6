"""From the feed to the lake: every quote is durable first and committed exactly once.

Asyncio and SQLite live here; Dagster and pyiceberg do not. ``worker`` puts the parts together:
``feed`` receives, ``session`` makes rows, ``journal`` spools them, ``sink`` commits them.
"""
