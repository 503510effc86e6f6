"""`lakehouse up`, `demo` and `down`: every process of a deployment, under one owner.

``up`` runs against the real feed, ``demo`` against the bundled feed server. Dagster is a set of
child processes here, never an import.
"""

from __future__ import annotations

from .stack import up
from .stop import down

__all__ = ["down", "up"]
