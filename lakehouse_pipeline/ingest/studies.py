"""TradingView's own indicators: charts asked for, their values taken. No socket, no clock.

One chart session and one series a symbol, because the feed refuses a second; on each series the
studies that settings name and the feed has. Charts are opened a few a second. A refusal concerns
one chart or one study: it is recorded as a reject and asked again later, each time after a longer
pause, and never ends the connection, whose quotes matter more. What the studies are comes from
``scripts``; how far back a chart reaches from ``landed``; which values are final, and how they
compare with ours, belongs to ``market.ingested``.
"""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

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

from .backoff import doubled
from .landed import MINUTE_US, Landed, Line
from .rows import INDICATORS, Entry, instant, micros, reject
from .scripts import AskedStudy

log = structlog.get_logger()

PREFIX = "cs_"
CHARTS_AT_ONCE = 2  # opened in one tick: 20 symbols have theirs within ten seconds
# µs, after a refusal that may pass, or without an answer; doubled for each in a row. There is no
# jitter in it: charts are opened a few at a time as it is.
RETRY = int(timedelta(minutes=5).total_seconds() * 1_000_000)
LONGEST_RETRY = int(timedelta(hours=2).total_seconds() * 1_000_000)
NEVER = sys.maxsize
SYMBOL_ID, SERIES, TURNAROUND, MINUTES = "sds_sym_1", "sds_1", "s1", "1"


@dataclass
class _Study:
    id: str
    given_up_at: int  # when no answer has come by then
    answered: bool = False  # completed, even if without values
    begun: bool = False  # its first full block came
    retry_at: int | None = None  # None: not refused
    bars: int = 0  # of its chart by now
    newest: int = 0  # of these bars, epoch µs

    def bars_up_to(self, bar: int) -> int:
        """Return how many bars its chart has up to the one at *bar*, which may be a new one."""
        if bar > self.newest:
            self.bars += 1
            self.newest = bar
            return self.bars
        # There are no more bars than minutes between.
        return max(self.bars - (self.newest - bar) // MINUTE_US, 1)


@dataclass
class _Chart:
    symbol: str
    given_up_at: int  # when no answer has come by then
    session: str = field(default_factory=lambda: f"{PREFIX}{uuid.uuid4().hex[:12]}")
    complete: bool = False  # its bars came: studies can stand on them
    retry_at: int | None = None  # None: not refused
    studies: dict[AskedStudy, _Study] = field(default_factory=dict)

    def asked_as(self, name: str) -> AskedStudy | None:
        """Return the study that was asked for by the id *name*, unless it is nobody's any more."""
        return next((asked for asked, study in self.studies.items() if study.id == name), None)


class StudyRecorder:
    """The charts of one connection, *bars* long where nothing was missed.

    *landed* outlives the connection, so that a reconnect repeats little and leaves nothing out.
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
        # Refused or not answered in a row, by symbol and study; None is the chart.
        self._failures: Counter[tuple[str, AskedStudy | None]] = Counter()

    @property
    def lacking(self) -> int:
        """How many charts and studies were refused or not answered, and have not come since."""
        return len(self._failures)

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
                entries.append(self._unanswered(chart, None, at))
            if hangs or chart.symbol not in symbols or _is_due(chart.retry_at, at):
                self._protocol.chart_delete_session(chart.session)
                del self._charts[chart.session]
                if chart.symbol not in symbols:
                    self._forget_failures(chart.symbol)
            elif chart.complete:
                entries += self._forget_unanswered(chart, at)
                self._ask(chart, studies, at)
        charted = {chart.symbol for chart in self._charts.values()}
        for symbol in sorted(set(symbols) - charted)[:CHARTS_AT_ONCE]:
            patience = self._patience(symbol, None)
            self._open(_Chart(symbol, at + patience), self._landed.bars(symbol, at, self._bars))
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
                    for name, block in points.items():
                        if block and (asked := chart.asked_as(name)) is not None:
                            entries += self._land(chart, asked, block, at)
                case SeriesCompleted():
                    chart.complete = True
                    self._failures.pop((chart.symbol, None), None)
                case StudyCompleted(study=name) if (asked := chart.asked_as(name)) is not None:
                    chart.studies[asked].answered = True
                    self._failures.pop((chart.symbol, asked), None)
                case StudyFailed(study=name) if (asked := chart.asked_as(name)) is not None:
                    refused = chart.studies[asked]
                    entries.append(self._refused(chart, asked, refused, event, at))
                case SymbolFailed() | SeriesFailed() | CriticalFailure():
                    entries.append(self._refused(chart, None, chart, event, at))
                case _:
                    pass  # loading, resolved: nothing waits for them
        return entries

    def _open(self, chart: _Chart, bars: int) -> None:
        self._charts[chart.session] = chart
        self._protocol.chart_create_session(chart.session)
        self._protocol.resolve_symbol(chart.session, SYMBOL_ID, chart.symbol)
        self._protocol.create_series(
            chart.session,
            SERIES,
            turnaround=TURNAROUND,
            symbol_id=SYMBOL_ID,
            resolution=MINUTES,
            count=bars,
        )

    def _ask(self, chart: _Chart, studies: Sequence[AskedStudy], at: int) -> None:
        """Ask for the studies that *chart* does not have, or was refused long enough ago."""
        for asked in studies:
            study = chart.studies.get(asked)
            if study is not None and not _is_due(study.retry_at, at):
                continue
            self._asked += 1
            patience = self._patience(chart.symbol, asked)
            chart.studies[asked] = _Study(f"st{self._asked}", at + patience)
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
                yield self._unanswered(chart, asked, at)

    def _land(
        self, chart: _Chart, asked: AskedStudy, block: list[StudyPoint], at: int
    ) -> Iterator[Entry]:
        """Yield the rows of a block; of the first one what no earlier session has landed."""
        symbol, study = chart.symbol, chart.studies[asked]
        line: Line = (symbol, asked.name, asked.label)
        first, known = micros(block[0].time), 0
        if not study.begun:
            study.begun = True
            self._failures.pop((symbol, asked), None)
            known = self._landed.newest(line) or 0
            if 0 < known < first:
                yield self._hole(line, known, first, at)
        for point in block:
            bar = micros(point.time)
            bars = study.bars_up_to(bar)
            if bar < known:
                continue
            for plot, value in zip(asked.plots, point.values, strict=False):
                if plot is not None and value is not None:
                    row = (symbol, bar, at, asked.name, asked.label, plot, value)
                    yield INDICATORS, (*row, self._session_id, bars)
        self._landed.note(line, study.newest)

    def _hole(self, line: Line, since: int, until: int, at: int) -> Entry:
        symbol, name, label = line
        what = f"{name} {label}: no values from {instant(since)} to {instant(until)}"
        log.warning("study_hole", symbol=symbol, what=what)
        payload = f"{what}, where the chart begins"
        return reject(self._session_id, at, "study_hole", payload, symbol=symbol)

    def _refused(
        self,
        chart: _Chart,
        asked: AskedStudy | None,
        refused: _Chart | _Study,
        event: Event,
        at: int,
    ) -> Entry:
        """Note a refusal; what a subscription does not include is not asked for again."""
        error, what = to_error(event), _called(asked)
        lasting = isinstance(error, LimitError | EntitlementError | SymbolError)
        refused.retry_at = NEVER if lasting else at + self._patience(chart.symbol, asked)
        self._failures[chart.symbol, asked] += 1
        log.warning(
            "study_refused", symbol=chart.symbol, what=what, problem=str(error), lasting=lasting
        )
        payload = f"{what}: {error}"
        return reject(self._session_id, at, "study_refused", payload, symbol=chart.symbol)

    def _unanswered(self, chart: _Chart, asked: AskedStudy | None, at: int) -> Entry:
        what = _called(asked)
        self._failures[chart.symbol, asked] += 1
        log.warning("study_unanswered", symbol=chart.symbol, what=what)
        return reject(self._session_id, at, "study_unanswered", what, symbol=chart.symbol)

    def _patience(self, symbol: str, asked: AskedStudy | None) -> int:
        """Return how long (µs) to wait: for an answer, or after a refusal to ask again."""
        return doubled(RETRY, self._failures.get((symbol, asked), 0), longest=LONGEST_RETRY)

    def _forget_failures(self, symbol: str) -> None:
        for key in [key for key in self._failures if key[0] == symbol]:
            del self._failures[key]


def is_about_charts(event: Event) -> bool:
    """Tell whether *event* belongs to a chart session rather than to quotes."""
    session = getattr(event, "session", None)
    return isinstance(session, str) and session.startswith(PREFIX)


def _called(asked: AskedStudy | None) -> str:
    return "chart" if asked is None else asked.name


def _hangs(asked: _Chart | _Study, at: int) -> bool:
    """Tell whether an answer, be it a refusal, is long overdue."""
    return asked.retry_at is None and at >= asked.given_up_at


def _is_due(retry_at: int | None, at: int) -> bool:
    return retry_at is not None and at >= retry_at
