"""The only part that knows Iceberg: tables, reading, the one commit class, maintenance."""

from .commit import Commit
from .lakehouse import Lakehouse
from .manifests import DataFileInfo
from .slices import Slice

__all__ = ["Commit", "DataFileInfo", "Lakehouse", "Slice"]
