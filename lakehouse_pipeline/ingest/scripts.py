"""Which of TradingView's studies stand for our indicators, and how they are asked for.

Their descriptions are fetched once a worker's life and kept; until they are there no study is
asked for. Add an indicator the feed has as an entry of ``STUDIES``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import structlog

from lakehouse_pipeline.errors import FeedError, StudyError
from lakehouse_pipeline.market.indicators import STUDIES as COMPUTED
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.scripts import Script
from lakehouse_pipeline.tradingview.web import fetch_script

log = structlog.get_logger()

RETRY = timedelta(minutes=5)


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
    """``ready`` holds the studies to ask for; ``run`` fetches them when *allowed* has returned."""

    def __init__(
        self,
        feed: FeedSettings,
        indicators: Mapping[str, Mapping[str, int | float]],
        *,
        allowed: Callable[[], Awaitable[object]],
    ) -> None:
        self.ready: list[AskedStudy] = []
        self._feed = feed
        self._missing = {name: indicators[name] for name in indicators if name in STUDIES}
        self._allowed = allowed

    async def run(self) -> NoReturn:
        """Fetch what is missing, again and again until nothing is; then wait for ever."""
        await self._allowed()
        while self._missing:
            for name, parameters in list(self._missing.items()):
                try:
                    script = await fetch_script(self._feed, STUDIES[name].pine_id)
                    self.ready.append(asked_study(name, parameters, script))
                    del self._missing[name]
                except FeedError as error:
                    log.warning("study_not_described", study=name, problem=str(error))
            await asyncio.sleep(RETRY.total_seconds() if self._missing else 0)
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")


def asked_study(name: str, parameters: Mapping[str, int | float], script: Script) -> AskedStudy:
    """Return the request for indicator *name* with *parameters* (the others as we default them).

    Raises:
        StudyError: we have no such parameter, or the script no such input any more.
    """
    try:
        study = COMPUTED[name](**parameters)
    except TypeError as error:
        raise StudyError(
            f"Indicator {name} does not take these parameters: {', '.join(parameters)}.",
            mend="Mend the section 'indicators'.",
        ) from error
    given: dict[str, int | float | str | bool] = {}
    for parameter, value in study.parameters.items():
        found = script.input_id(STUDIES[name].titles[parameter])
        if found is None:
            raise StudyError(f"{script.pine_id} {script.version} has no input for {parameter}.")
        given[found] = value
    return AskedStudy(name, study.label, script.plots, script.request(given))
