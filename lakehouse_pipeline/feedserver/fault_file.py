"""Reads ``--faults FILE``: a YAML list of faults.

::

    - {kind: drop, at: 30s, every: 2m}
    - {kind: frozen, at: 1m, lasts: 20s, symbols: [BINANCE:BTCUSDT]}
    - {kind: bad_values, fields: [lp], value: 1.0e+100, share: 0.05}

Times are market time since the server started: seconds, or a number with ms, s, m or h.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from lakehouse_pipeline.errors import InputFileError

from .fault_kinds import KINDS
from .faults import Fault

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def read_faults(path: Path) -> list[Fault]:
    """Return the faults of *path*.

    Raises:
        InputFileError: the file is unreadable, or names a fault or option there is not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputFileError(f"{path} cannot be read as YAML: {reason}.") from error
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise InputFileError(f"{path} holds no list of faults.", mend="Write '- kind: drop'.")
    return [_fault(path, entry) for entry in content]


def _fault(path: Path, entry: dict[str, Any]) -> Fault:
    kind = KINDS.get(str(entry.get("kind")))
    if kind is None:
        raise InputFileError(
            f"{path}: fault kind {entry.get('kind')!r} is unknown.", mend=f"Known: {_list(KINDS)}."
        )
    options = {one.name: one for one in dataclasses.fields(kind) if one.init}
    given = {name: value for name, value in entry.items() if name != "kind"}
    unknown = sorted(set(given) - set(options))
    if unknown:
        raise InputFileError(
            f"{path}: {entry['kind']} has no option {unknown[0]!r}.",
            mend=f"Options: {_list(options)}.",
        )
    try:
        return kind(
            **{
                name: _duration(value) if "timedelta" in str(options[name].type) else value
                for name, value in given.items()
            }
        )
    except (TypeError, ValueError) as error:
        raise InputFileError(f"{path}: {entry['kind']}: {error}.") from error


def _duration(value: Any) -> timedelta:
    match = _DURATION.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is no time; write 10s, 2m or 250ms")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
