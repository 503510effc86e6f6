"""Studies as they are chosen: a name and parameters, checked and written one way.

What is built, read and asked of the feed comes through here, so that all mean the same study.
"""

from __future__ import annotations

from collections.abc import Mapping

from lakehouse_pipeline.errors import SettingsError

from .indicators import STUDIES, Study

Parameters = Mapping[str, Mapping[str, int | float]]
"""Chosen parameters by the name of the indicator; those left out are the usual ones."""


def study_of(name: str, parameters: Mapping[str, int | float]) -> Study:
    """Return the study of this name with *parameters*.

    Raises:
        SettingsError: if the name or a parameter is unknown or cannot be.
    """
    if name not in STUDIES:
        raise SettingsError(
            f"Indicator {name!r} is not known.", mend=f"Known: {', '.join(sorted(STUDIES))}."
        )
    usual = STUDIES[name]().parameters
    for parameter in parameters:
        if parameter not in usual:
            raise SettingsError(
                f"Indicator {name} has no parameter {parameter!r}.",
                mend=f"It has: {', '.join(usual) or 'none'}.",
            )
    # A whole number is the same however it was written.
    numbers = {p: int(v) if float(v).is_integer() else v for p, v in parameters.items()}
    try:
        return STUDIES[name](**numbers)
    except ValueError as error:
        raise SettingsError(
            f"Indicator {name}: {error}.", mend="Mend its parameters, or leave them out."
        ) from error
