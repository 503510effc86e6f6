"""TradingView's own indicators: charts asked for, their values taken. No socket, no clock.

One chart session and one series a symbol, because the feed refuses a second; on each series the
studies that settings name and the feed has. Charts are opened a few a second. A refusal concerns
one chart or one study: it is recorded as a reject and asked again later, and never ends the
connection, whose quotes matter more. What the studies are comes from ``scripts``; which values are
final, and how they compare with ours, belongs to ``market.ingested``.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from lakehouse_pipeline.errors import EntitlementError, LimitError, SymbolError
from lakehouse_pipeline.tradingview.messages import (
    CriticalFailure,
    Event,
    HistoryUpdate,
    SeriesCompleted,
    SeriesFailed,
    StudyCompleted,
    StudyFailed,
    StudyPoint,
    SymbolFailed,
    to_error,
)
from lakehouse_pipeline.tradingview.protocol import ClientProtocol
from lakehouse_pipeline.tradingview.scripts import RUNNER

from .rows import INDICATORS, Entry, micros, reject
from .scripts import AskedStudy

log = structlog.get_logger()

PREFIX = "cs_"
CHARTS_AT_ONCE = 2  # opened in one tick: 20 symbols have theirs within ten seconds
# µs, after a refusal that may pass, or without an answer.
RETRY = int(timedelta(minutes=5).total_seconds() * 1_000_000)
NEVER = sys.maxsize
SYMBOL_ID, SERIES, TURNAROUND, MINUTES = "sds_sym_1", "sds_1", "s1", "1"

Landed = dict[tuple[str, AskedStudy], int]
"""The newest bar with values, epoch µs, of each symbol and study."""


@dataclass
class _Study:
    id: str
    asked_at: int  # received time, epoch µs
    answered: bool = False  # completed, even if without values
    begun: bool = False  # its first full block came
    retry_at: int | None = None  # None: not refused


@dataclass
class _Chart:
    symbol: str
    asked_at: int  # received time, epoch µs
    session: str = field(default_factory=lambda: f"{PREFIX}{uuid.uuid4().hex[:12]}")
    complete: bool = False  # its bars came: studies can stand on them
    retry_at: int | None = None  # None: not refused
    studies: dict[AskedStudy, _Study] = field(default_factory=dict)


class StudyRecorder:
    """The charts of one connection, *bars* long.

    *landed* outlives the connection, so that a reconnect repeats little.
    """

    def __init__(
        self, session_id: str, protocol: ClientProtocol, landed: Landed, *, bars: int
    ) -> None:
        self._session_id = session_id
        self._protocol = protocol
        self._landed = landed
        self._bars = bars
        self._charts: dict[str, _Chart] = {}  # by chart session
        self._asked = 0

    def follow(
        self, symbols: Collection[str], studies: Sequence[AskedStudy], at: int
    ) -> list[Entry]:
        """Bring the charts nearer to what is wanted; call it once a second.

        *at* is the received time, by which what was refused or not answered is asked for again.
        Returned is an entry for each that was not answered.
        """
        entries: list[Entry] = []
        if not studies:
            return entries
        for chart in list(self._charts.values()):
            hangs = not chart.complete and _hangs(chart, at)
            if hangs:
                entries.append(self._unanswered(chart, at, "chart"))
            if hangs or chart.symbol not in symbols or _is_due(chart.retry_at, at):
                self._protocol.chart_delete_session(chart.session)
                del self._charts[chart.session]
            elif chart.complete:
                entries += self._forget_unanswered(chart, at)
                self._ask(chart, studies, at)
        charted = {chart.symbol for chart in self._charts.values()}
        for symbol in sorted(set(symbols) - charted)[:CHARTS_AT_ONCE]:
            self._open(_Chart(symbol, at))
        return entries

    def forgive(self) -> None:
        """Ask again for all that was refused: another token may be allowed more."""
        for chart in self._charts.values():
            chart.retry_at = None if chart.retry_at is None else 0
            for study in chart.studies.values():
                study.retry_at = None if study.retry_at is None else 0

    def receive(self, events: Iterable[Event], at: int) -> list[Entry]:
        """Return the entries for *events* about charts, received at *at*."""
        entries: list[Entry] = []
        for event in events:
            chart = self._charts.get(getattr(event, "session", ""))
            match event:
                case _ if chart is None:
                    pass  # of a chart closed meanwhile
                case HistoryUpdate(studies=points):
                    for asked, study in chart.studies.items():
                        new = self._new(chart.symbol, asked, study, points.get(study.id, []))
                        entries += self._rows(chart.symbol, asked, new, at)
                case SeriesCompleted():
                    chart.complete = True
                case StudyCompleted(study=name):
                    for study in chart.studies.values():
                        study.answered |= study.id == name
                case StudyFailed(study=name):
                    for asked, study in chart.studies.items():
                        if study.id == name:
                            entries.append(self._refused(chart, study, event, at, asked.name))
                case SymbolFailed() | SeriesFailed() | CriticalFailure():
                    entries.append(self._refused(chart, chart, event, at, "chart"))
                case _:
                    pass  # loading, resolved: nothing waits for them
        return entries

    def _open(self, chart: _Chart) -> None:
        self._charts[chart.session] = chart
        self._protocol.chart_create_session(chart.session)
        self._protocol.resolve_symbol(chart.session, SYMBOL_ID, chart.symbol)
        self._protocol.create_series(
            chart.session,
            SERIES,
            turnaround=TURNAROUND,
            symbol_id=SYMBOL_ID,
            resolution=MINUTES,
            count=self._bars,
        )

    def _ask(self, chart: _Chart, studies: Sequence[AskedStudy], at: int) -> None:
        """Ask for the studies that *chart* does not have, or was refused long enough ago."""
        for asked in studies:
            study = chart.studies.get(asked)
            if study is not None and not _is_due(study.retry_at, at):
                continue
            self._asked += 1
            chart.studies[asked] = _Study(f"st{self._asked}", at)
            self._protocol.create_study(
                chart.session,
                f"st{self._asked}",
                turnaround="st1",
                series=SERIES,
                script=RUNNER,
                inputs=asked.inputs,
            )

    def _forget_unanswered(self, chart: _Chart, at: int) -> Iterator[Entry]:
        """Give back the studies that hang, so that they are asked for anew."""
        for asked, study in list(chart.studies.items()):
            if not (study.answered or study.begun) and _hangs(study, at):
                self._protocol.remove_study(chart.session, study.id)
                del chart.studies[asked]
                yield self._unanswered(chart, at, asked.name)

    def _new(
        self, symbol: str, asked: AskedStudy, study: _Study, points: list[StudyPoint]
    ) -> list[StudyPoint]:
        """Return those of *points* that are to be kept.

        Of the first block that is what no earlier session has landed, and the first values, which
        tell where the study began.
        """
        if not points:
            return points
        known = self._landed.get((symbol, asked), 0)
        self._landed[symbol, asked] = max(known, micros(points[-1].time))
        if study.begun:
            return points
        study.begun = True
        begins: dict[int, datetime] = {}  # by position of the plot
        for point in points:
            for position, value in enumerate(point.values):
                if value is not None:
                    begins.setdefault(position, point.time)
        told = set(begins.values())
        return [point for point in points if micros(point.time) >= known or point.time in told]

    def _rows(
        self, symbol: str, asked: AskedStudy, points: list[StudyPoint], at: int
    ) -> Iterator[Entry]:
        for point in points:
            for plot, value in zip(asked.plots, point.values, strict=False):
                if plot is not None and value is not None:
                    row = (symbol, micros(point.time), at, asked.name, asked.label, plot, value)
                    yield INDICATORS, (*row, self._session_id)

    def _refused(
        self, chart: _Chart, refused: _Chart | _Study, event: Event, at: int, what: str
    ) -> Entry:
        """Note a refusal; what a subscription does not include is not asked for again."""
        error = to_error(event)
        lasting = isinstance(error, LimitError | EntitlementError | SymbolError)
        refused.retry_at = NEVER if lasting else at + RETRY
        log.warning(
            "study_refused", symbol=chart.symbol, what=what, problem=str(error), lasting=lasting
        )
        payload = f"{what}: {error}"
        return reject(self._session_id, at, "study_refused", payload, symbol=chart.symbol)

    def _unanswered(self, chart: _Chart, at: int, what: str) -> Entry:
        log.warning("study_unanswered", symbol=chart.symbol, what=what)
        return reject(self._session_id, at, "study_unanswered", what, symbol=chart.symbol)


def is_about_charts(event: Event) -> bool:
    """Tell whether *event* belongs to a chart session rather than to quotes."""
    session = getattr(event, "session", None)
    return isinstance(session, str) and session.startswith(PREFIX)


def _hangs(asked: _Chart | _Study, at: int) -> bool:
    """Tell whether an answer, be it a refusal, is long overdue."""
    return asked.retry_at is None and at >= asked.asked_at + RETRY


def _is_due(retry_at: int | None, at: int) -> bool:
    return retry_at is not None and at >= retry_at
