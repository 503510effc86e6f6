"""The studies of one chart session: what is computed on which series, and what the client hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import series_packets as packets
from .outlet import ChartOutlet
from .series import Series
from .studies import Study, find_study, is_pine

TOO_MANY = "The maximum number of studies per chart has been reached for current subscription"


@dataclass(frozen=True, slots=True)
class _Attached:
    name: str
    turnaround: str
    series: str
    study: Study
    inputs: dict[str, Any]
    is_pine: bool


class ChartStudies:
    def __init__(self, session: str, outlet: ChartOutlet) -> None:
        self._session = session
        self._outlet = outlet
        self._attached: dict[str, _Attached] = {}

    def create(
        self, name: str, turn: str, series: Series | None, study_name: str, given: list[Any]
    ) -> None:
        """Attach a study to *series* and send all its values, or say why not."""
        inputs = given[0] if given and isinstance(given[0], dict) else {}
        found = find_study(study_name, inputs)
        if series is None:
            self._refuse(name, turn, "check study unexpected error")
        elif found is None:
            self._refuse(name, turn, f"unknown study: {inputs.get('pineId', study_name)}")
        elif is_pine(found[0]) and self._pine_studies() >= self._outlet.plan.pine_studies:
            self._refuse(name, turn, TOO_MANY)
        else:
            key, study = found
            attached = _Attached(name, turn, series.name, study, inputs, is_pine(key))
            self._attached[name] = attached
            self._start(attached, series)

    def watches(self, series: Series) -> bool:
        """Whether anything is computed on *series*."""
        return any(attached.series == series.name for attached in self._attached.values())

    def remove(self, name: str) -> None:
        self._attached.pop(name, None)

    def restart(self, series: Series) -> None:
        """Send all values anew after *series* was modified."""
        for attached in self._attached.values():
            if attached.series == series.name:
                self._start(attached, series)

    def push(self, series: Series, changed: int) -> None:
        """Send the values at the *changed* newest bars of *series*."""
        for attached in self._attached.values():
            if attached.series == series.name:
                self._send(attached, series, changed)

    def _start(self, attached: _Attached, series: Series) -> None:
        about = [self._session, attached.name, _turn(attached, series)]
        self._outlet.send_stamped("study_loading", about)
        self._send(attached, series, len(series.bars))
        self._outlet.send_stamped("study_completed", about)

    def _send(self, attached: _Attached, series: Series, last: int) -> None:
        bars = series.warm_up + series.bars
        points = attached.study.points(bars, attached.inputs)[len(series.warm_up) :]
        rows = [
            {"i": i, "v": [series.bars[i].time, *points[i]]}
            for i in range(len(points) - last, len(points))
            if any(value is not None for value in points[i])
        ]
        content = packets.study(_turn(attached, series), rows)
        self._outlet.send("du", [self._session, {attached.name: content}])

    def _refuse(self, name: str, turn: str, reason: str) -> None:
        self._outlet.send("study_error", [self._session, name, turn, reason, "undefined"])

    def _pine_studies(self) -> int:
        return sum(attached.is_pine for attached in self._attached.values())


def _turn(attached: _Attached, series: Series) -> str:
    return f"{series.turnaround}_{attached.turnaround}"
