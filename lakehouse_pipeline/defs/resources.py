"""How a body reaches the settings and the lake.

Both give plain objects of this project and cost nothing until asked. Add a resource here when a
body needs an outside thing that tests replace; never put rules into one.
"""

# No postponed annotations here: Dagster reads the class of a field, not its name.
from typing import TYPE_CHECKING

import dagster as dg

from lakehouse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from lakehouse_pipeline.lake.lakehouse import Lakehouse


class SettingsResource(dg.ConfigurableResource["SettingsResource"]):
    """The settings of this deployment, read from environment and YAML when a run asks."""

    def load(self) -> Settings:
        return load_settings()


class LakehouseResource(dg.ConfigurableResource["LakehouseResource"]):
    """The tables."""

    settings: SettingsResource

    def open(self) -> "Lakehouse":
        """Return the lake.

        Raises:
            LakeError: one line that says what is wrong with catalog or storage.
        """
        from lakehouse_pipeline.lake.lakehouse import Lakehouse  # noqa: PLC0415  # pyiceberg is slow to import

        return Lakehouse.open(self.settings.load())
