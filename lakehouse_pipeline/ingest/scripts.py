"""Which of TradingView's studies stand for our indicators, and how they are asked for.

Their descriptions are fetched once a worker's life and kept; until they are there no study is
asked for. What is not asked for, and why, is told: ``troubles`` to whoever looks now, ``news`` to
the rejects. Add an indicator the feed has as an entry of ``STUDIES``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import structlog

from lakehouse_pipeline.errors import FeedError, SettingsError, StudyError
from lakehouse_pipeline.market.chosen import Parameters, study_of
from lakehouse_pipeline.market.indicators import Study
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.scripts import Script
from lakehouse_pipeline.tradingview.web import fetch_script

from .backoff import doubled
from .landed import MOST_BARS

log = structlog.get_logger()

RETRY = timedelta(minutes=5)
LONGEST_RETRY = timedelta(hours=2)
SETTLED = 120  # bars that are settled at once where nothing is known to have been missed


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The feed's script for an indicator; *titles* of its inputs, lower case, by our parameter."""

    pine_id: str
    titles: Mapping[str, tuple[str, ...]]


STUDIES: Mapping[str, Counterpart] = {
    "rsi": Counterpart("STD;RSI", {"length": ("rsi length", "length")}),
    "macd": Counterpart(
        "STD;MACD",
        {
            "fast": ("fast length",),
            "slow": ("slow length",),
            "signal": ("signal smoothing", "signal length"),
        },
    ),
}


@dataclass(frozen=True, eq=False)
class AskedStudy:
    """A study as it is asked for, and how its values are called: *plots* by position."""

    name: str
    label: str  # the parameters, as computed values have them
    plots: tuple[str | None, ...]
    inputs: Mapping[str, Any]  # what create_study takes: numbers, texts or objects


class StudyScripts:
    """``ready`` holds the studies to ask for; ``run`` fetches them when *allowed* has returned.

    ``bars`` is how long a chart must be for all of them, ``chosen`` their names and parameters, and
    ``troubles`` says of each that is not asked for why not.
    """

    def __init__(
        self,
        feed: FeedSettings,
        indicators: Parameters,
        *,
        allowed: Callable[[], Awaitable[object]],
    ) -> None:
        self.ready: list[AskedStudy] = []
        self.troubles: dict[str, str] = {}
        self._untold: list[tuple[str, str]] = []
        self._feed = feed
        studies, self._impossible = askable(indicators)
        self._missing = {study.name: study for study in studies}
        self.chosen = [(study.name, study.label) for study in studies]
        self.bars = bars_for(studies)
        self._allowed = allowed

    def news(self) -> list[tuple[str, str]]:
        """Return the reason and wording of each trouble not returned before."""
        news, self._untold = self._untold, []
        return news

    async def run(self) -> NoReturn:
        """Fetch what is missing, again and again until nothing is; then wait for ever."""
        await self._allowed()
        for name, problem in self._impossible.items():
            self._note("study_dropped", name, problem)
        failures = 0
        while self._missing:
            for name, study in list(self._missing.items()):
                try:
                    script = await fetch_script(self._feed, STUDIES[name].pine_id)
                    self.ready.append(asked_study(study, script))
                    del self._missing[name]
                    self.troubles.pop(name, None)
                except FeedError as error:
                    self._note("study_not_described", name, str(error))
                except Exception as error:  # noqa: BLE001  # whatever it is, quotes go on without
                    self._note("study_dropped", name, str(error) or type(error).__name__)
                    del self._missing[name]
            pause = doubled(RETRY, failures, longest=LONGEST_RETRY)
            failures += 1
            await asyncio.sleep(pause.total_seconds() if self._missing else 0)
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    def _note(self, reason: str, name: str, problem: str) -> None:
        log.warning(reason, study=name, problem=problem)
        if self.troubles.get(name) != problem:  # asked again in vain, it is told once
            self._untold.append((reason, f"{name}: {problem}"))
        self.troubles[name] = problem


def askable(indicators: Parameters) -> tuple[list[Study], dict[str, str]]:
    """Return those of *indicators* that the feed has too; and of those that cannot be, why not."""
    studies, impossible = [], {}
    for name, parameters in indicators.items():
        if name in STUDIES:
            try:
                studies.append(study_of(name, parameters))
            except SettingsError as error:
                impossible[name] = str(error)
    return studies, impossible


def bars_for(studies: Iterable[Study]) -> int:
    """Return how many bars a chart needs for the newest values to show nothing of its begin."""
    return min(max((study.memory for study in studies), default=0) + SETTLED, MOST_BARS)


def asked_study(study: Study, script: Script) -> AskedStudy:
    """Return the request for *study*.

    Raises:
        StudyError: the script has no input for a parameter of ours any more.
    """
    given: dict[str, int | float | str | bool] = {}
    for parameter, value in study.parameters.items():
        found = script.input_id(STUDIES[study.name].titles[parameter])
        if found is None:
            raise StudyError(f"{script.pine_id} {script.version} has no input for {parameter}.")
        given[found] = value
    return AskedStudy(study.name, study.label, script.plots, script.request(given))
