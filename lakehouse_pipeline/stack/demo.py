"""`lakehouse demo`: the whole deployment against the bundled feed server, with a running report.

Its state is apart from real data. With a time limit it is also a test: it ends well only if bars,
a gap report, indicators and checks were built for every exchange.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from lakehouse_pipeline.build.bars import BARS_1M, current_watermark
from lakehouse_pipeline.build.indicators import INDICATORS
from lakehouse_pipeline.build.inputs import COVERAGE
from lakehouse_pipeline.build.views import read_with_studies
from lakehouse_pipeline.ingest.heartbeat import WorkerStatus
from lakehouse_pipeline.ingest.supervision import is_alive, newest_of, workers
from lakehouse_pipeline.interrupts import Interrupts
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Mark
from lakehouse_pipeline.market.indicators import macd, rsi
from lakehouse_pipeline.market.windows import MINUTE, TimeWindow, ceil, floor
from lakehouse_pipeline.settings import LakeSettings, Settings

from .console import Unanswered
from .processes import port_is_free
from .report import bar_lines, end_line, exchange_line, waiting_line
from .stack import Interrupted, Stack

CHECKED = ("market/bars_1s", "market/bars_1m")
ADVANCE_EVERY = 3.0  # seconds between looks at what can be built next
WAITING_EVERY, REPORT_EVERY = 10.0, 60.0  # seconds, before and after the first bar
GRACE = 180.0  # seconds for what is still being built when the time is up
SHOWN_BARS = 3


def demo(
    settings: Settings, seconds: float | None = None, *, say: Callable[[str], None] = print
) -> int:
    """Run the demo until interrupted, or for *seconds* from when every worker has durable rows.

    Returns:
        The exit code: 0, or 1 if the time was up and something was missing, or a run had to be
        killed at the end.
    """
    chosen = demo_settings(settings)
    started = datetime.now(UTC)
    with Interrupts() as interrupts:
        farewell = "Stopped before everything had started."
        missing: list[str] = []
        stack = Stack(chosen, interrupts, say=say, feed=bundled_feed(chosen))
        try:
            with stack:
                say(f"Dagster UI  {stack.ui_url}")
                with closing(Lakehouse.open(stack.settings)) as lake:
                    shown = Demonstration(stack, lake, interrupts, say, since=started)
                    missing = shown.run(seconds)
                    farewell = shown.farewell()
        except Interrupted:
            pass  # the farewell says so
    with suppress(OSError):  # whoever listened has gone
        for line in (*(f"Missing: {line}" for line in missing), farewell):
            say(line)
    return 1 if missing or not stack.drained else 0


def demo_settings(settings: Settings) -> Settings:
    """Return *settings* with a state, lake and credentials of the demo's own, and free ports."""
    ui, grpc = settings.ui, settings.grpc
    return settings.model_copy(
        update={
            "state_dir": settings.state_dir / "demo",
            "lake": LakeSettings(),
            "feed": settings.feed.model_copy(
                update={
                    "token": None,
                    "sessionid": None,
                    "sessionid_sign": None,
                    "connect_interval": timedelta(0),  # the server is ours: no need to be shy
                }
            ),
            "history": settings.history.model_copy(update={"pace": timedelta(0)}),
            # A port that was asked for must be free; a default one may give way.
            "ui": (
                ui
                if "port" in ui.model_fields_set or port_is_free(ui.host, ui.port)
                else ui.model_copy(update={"port": 0})
            ).model_copy(update={"read_only": False}),  # the demo launches a run itself
            "grpc": grpc
            if "port" in grpc.model_fields_set or port_is_free(grpc.host, grpc.port)
            else grpc.model_copy(update={"port": 0}),
        }
    ).resolved()


def bundled_feed(settings: Settings) -> list[str]:
    """Return the command that serves a generated market with every configured symbol."""
    symbols = [name for exchange in settings.exchanges for name in settings.symbols(exchange)]
    lakehouse = Path(sysconfig.get_path("scripts")) / "lakehouse"
    return [str(lakehouse), "feed", "serve", "--port", "0", "--market", "generated",
            "--symbols", ",".join(symbols)]  # fmt: skip


class Demonstration:
    """What is shown while the demo runs, and what is asked of it at the end."""

    def __init__(
        self,
        stack: Stack,
        lake: Lakehouse,
        interrupts: Interrupts,
        say: Callable[[str], None],
        *,
        since: datetime,
    ) -> None:
        self._stack = stack
        self._lake = lake
        self._interrupts = interrupts
        self._say = say
        self._started = since
        self._exchanges = list(stack.settings.exchanges)
        self._symbol = stack.settings.symbols(self._exchanges[0])[0]
        self._is_told = False  # what every worker records
        self._last_shown: datetime | None = None
        self._repair: str | None = None
        self._gap_report: str | None = None

    def run(self, seconds: float | None) -> list[str]:
        """Return what is missing when the time is up; nothing if interrupted before."""
        deadline: float | None = None
        is_durable = False
        report_at = advance_at = time.monotonic()
        while not self._interrupts.wait(1.0):
            self._stack.keep_alive()
            now = time.monotonic()
            if not is_durable and self._all_durable():
                is_durable, report_at = True, now
                if seconds is not None:
                    self._say(f"All workers have durable rows; {seconds:.0f} s from now it ends.")
                    deadline = now + seconds
            if now >= advance_at:
                # A server that is being started again answers the next time.
                with suppress(Unanswered):
                    self._advance()
                advance_at = time.monotonic() + ADVANCE_EVERY
            if now >= report_at:
                self._report()
                is_quiet = is_durable and self._last_shown is not None
                report_at = now + (REPORT_EVERY if is_quiet else WAITING_EVERY)
            if deadline is not None and now >= deadline:
                missing = list(self._missing())
                if not missing or now >= deadline + GRACE:
                    return missing
        return []

    def farewell(self) -> str:
        """Return what this demo has made, and where it is."""
        built = {
            "1-minute bars": sum(map(self._bars, self._exchanges)),
            "indicator values": sum(map(self._values, self._exchanges)),
        }
        state, here = self._stack.settings.state_dir, Path.cwd()
        shortest = state.relative_to(here) if state.is_relative_to(here) else state
        return end_line(built, shortest, self._symbol)

    def _report(self) -> None:
        """Say how far each exchange is, and show bars; before the first, say that it is coming."""
        found = [self._worker(exchange) for exchange in self._exchanges]
        if self._is_told and self._last_shown is None:
            self._say(waiting_line(self._symbol, found, now=datetime.now(UTC)))
        else:
            for line in map(exchange_line, self._exchanges, found):
                self._say(line)
            self._is_told = all(map(_is_durable, found))
        self._show_bars()

    def _advance(self) -> None:
        """Launch what the schedules would within the hour, each when it has what it stands on.

        What an earlier demo left is joined to this one: repair runs when the pause between them
        is a gap, and indicators stand on what it filled.
        """
        seen = [self._seen(exchange) for exchange in self._exchanges]
        if self._repair is None and all(seen):
            self._repair = self._launch("repair")
        elif self._repair and self._gap_report is None:
            closed = all(window and window.end >= ceil(window.start, MINUTE) for window in seen)
            if closed and self._has_ended(self._repair):
                self._gap_report = self._launch("report_gaps")

    def _seen(self, exchange: str) -> TimeWindow | None:
        """Return since when, and up to when, this demo has seen every symbol of *exchange*."""
        marks = self._lake.scan(COVERAGE, exchange=exchange, window=self._time())
        first_data = marks.filter(pl.col("kind") == Mark.SUBSCRIBED.value)
        begins = first_data.group_by("symbol").agg(pl.col("start").min()).collect()
        known = set(self._stack.settings.symbols(exchange)) <= set(begins["symbol"])
        end = current_watermark(self._lake, exchange) if known else None
        start = begins["start"].max()
        assert start is None or isinstance(start, datetime)
        return TimeWindow(start, end) if start and end and start < end else None

    def _has_ended(self, run_id: str) -> bool:
        runs = {run.run_id: run.status for run in self._stack.console.runs_since(self._started)}
        return runs.get(run_id) in ("SUCCESS", "FAILURE", "CANCELED")

    def _worker(self, exchange: str) -> WorkerStatus | None:
        now = datetime.now(UTC)
        living = (
            status
            for status in workers(self._stack.settings.state_dir, exchange)
            if is_alive(status, now)
        )
        return newest_of(living)

    def _all_durable(self) -> bool:
        return all(map(_is_durable, map(self._worker, self._exchanges)))

    def _bars(self, exchange: str) -> int:
        """Return how many bars of this demo are built."""
        return self._height(BARS_1M, exchange, self._time())

    def _values(self, exchange: str) -> int:
        """Return how many indicator values of this demo there are; null, while warming, is none."""
        return self._height(INDICATORS, exchange, self._time(), pl.col("value").is_not_null())

    def _time(self) -> TimeWindow:
        return TimeWindow(floor(self._started, MINUTE), datetime.now(UTC) + MINUTE)

    def _height(self, table: str, exchange: str, window: TimeWindow, *kept: pl.Expr) -> int:
        rows = self._lake.scan(table, exchange=exchange, window=window).filter(*kept)
        return rows.collect().height

    def _show_bars(self) -> None:
        bars = read_with_studies(
            self._lake, self._symbol, [rsi(), macd()], step=MINUTE, window=self._time()
        ).tail(SHOWN_BARS)
        if bars.height and bars["open_time"][-1] != self._last_shown:
            self._last_shown = bars["open_time"][-1]
            for line in bar_lines(self._symbol, bars):
                self._say(line)

    def _launch(self, job: str) -> str:
        """Ask for *job* of today now: the schedule's next hour may be far."""
        today = datetime.now(UTC).date().isoformat()
        bounds = {"start": self._exchanges[0], "end": self._exchanges[-1]}
        tags = {
            f"dagster/asset_partition_range_{bound}": f"{today}|{exchange}"
            for bound, exchange in bounds.items()
        }
        return self._stack.console.launch(job, tags=tags)

    def _missing(self) -> Iterator[str]:
        for exchange in self._exchanges:
            if not self._bars(exchange):
                yield f"one-minute bars of {exchange}"
            if not self._values(exchange):
                yield f"indicators of {exchange}"
        try:
            yield from self._missing_in_dagster()
        except Unanswered as error:
            yield f"an answer of the webserver: {error}"

    def _missing_in_dagster(self) -> Iterator[str]:
        console = self._stack.console
        runs = console.runs_since(self._started)
        for job in ("build_today", "repair", "report_gaps"):
            states = [run.status for run in runs if run.job == job]
            if "SUCCESS" not in states:
                yield f"a successful run of {job}; its runs: {', '.join(states) or 'none'}"
        streams = [run for run in runs if run.job == "stream_quotes" and run.status == "STARTED"]
        if len(streams) < len(self._exchanges):
            yield f"running streams: {len(streams)} of {len(self._exchanges)}"
        yield from (
            f"a passed check {name} of {asset}; last: {', '.join(states) or 'none'}"
            for (asset, name), states in console.check_results(CHECKED, since=self._started).items()
            if not states or states[0] != "SUCCEEDED"
        )


def _is_durable(worker: WorkerStatus | None) -> bool:
    return worker is not None and worker.last_durable_at is not None
