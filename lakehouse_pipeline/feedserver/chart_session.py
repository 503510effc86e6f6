"""The chart sessions of one client: symbols, series with their history, and live bars.

Which bars a plan gives is `history`; studies on a series are `chart_studies`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from . import series_packets as packets
from .chart_studies import ChartStudies
from .history import Archive, History, load_bars
from .instruments import full_name
from .outlet import ChartOutlet
from .refusal import Refused
from .resolution import parse_resolution
from .series import Series
from .world import World

DEFAULT_COUNT = 300
WARM_UP = 250  # bars: enough for Wilder's average of 14 to forget where it began


class ChartSessions:
    """The chart sessions of one client, by the client's own names."""

    def __init__(self, outlet: ChartOutlet, world: World) -> None:
        self._outlet = outlet
        self._world = world
        self._sessions: dict[str, ChartSession] = {}

    def symbols(self) -> Iterator[str]:
        """Yield the symbols of live series."""
        for session in self._sessions.values():
            yield from session.symbols()

    async def handle(self, method: str, params: list[Any]) -> None:
        """Do what a chart message asks; what changes nothing here is ignored.

        Raises:
            Refused: the parameters make no sense, or more is asked than the plan gives.
        """
        match method, params:
            case "chart_create_session", [str(name), *_]:
                self._sessions[name] = ChartSession(name, self._outlet, self._world)
            case "chart_delete_session", [str(name), *_]:
                self._sessions.pop(name, None)
            case _, [str(name), *arguments] if name in self._sessions:
                await self._sessions[name].handle(method, arguments)

    def push(self, symbol: str, at: datetime) -> None:
        """Bring the live series of *symbol* up to its trades before *at*."""
        for session in self._sessions.values():
            session.push(symbol, at)


class ChartSession:
    """One session: the symbols it resolved and the series on them."""

    def __init__(self, name: str, outlet: ChartOutlet, world: World) -> None:
        self._name = name
        self._outlet = outlet
        self._world = world
        self._symbols: dict[str, str | None] = {}  # None: not traded here
        self._series: dict[str, Series] = {}
        self._studies = ChartStudies(name, outlet)

    def symbols(self) -> Iterator[str]:
        return (series.symbol for series in self._series.values() if series.live)

    async def handle(self, method: str, arguments: list[Any]) -> None:
        """Do what a message to this session asks, its *arguments* without the session."""
        match method, arguments:
            case "resolve_symbol", [str(name), str(key), *_]:
                self._resolve(name, key)
            case "create_series", [str(name), str(turn), str(symbol), code, *asked] if asked:
                await self._create_series(name, turn, symbol, str(code), asked)
            case "modify_series", [str(name), str(turn), str(symbol), code, *asked]:
                await self._modify_series(name, turn, symbol, str(code), asked)
            case "remove_series", [str(name), *_]:
                self._series.pop(name, None)
            case "request_more_data", [str(name), int(count), *_] if name in self._series:
                await self._more(self._series[name], count)
            case "request_more_data", [int(count)] if self._series:
                await self._more(next(iter(self._series.values())), count)
            case "create_study", [str(name), str(turn), str(on), str(study), *inputs]:
                series = self._series.get(on)
                await self._warm_up(series)
                self._studies.create(name, turn, series, study, inputs)
            case "remove_study", [str(name), *_]:
                self._studies.remove(name)
            case (
                ("resolve_symbol" | "create_series" | "modify_series" | "request_more_data"),
                _,
            ):
                raise self._invalid(method, arguments)

    def push(self, symbol: str, at: datetime) -> None:
        for series in self._series.values():
            if series.live and series.symbol == symbol:
                self._push(series, at)

    def _resolve(self, name: str, key: str) -> None:
        symbol = full_name(key)
        instrument = self._world.market.instruments().get(symbol)
        if instrument is None:
            self._symbols[name] = None
            self._outlet.send_stamped("symbol_error", [self._name, name, "invalid symbol"])
        else:
            self._symbols[name] = symbol
            fields = instrument.resolved_fields()
            self._outlet.send_stamped("symbol_resolved", [self._name, name, fields])

    async def _create_series(
        self, name: str, turn: str, symbol_name: str, code: str, asked: list[Any]
    ) -> None:
        if len(self._series.keys() - {name}) >= self._outlet.plan.series:
            reason = "exceed limit of series in the session"
            raise Refused(self._name, reason, "create_series")
        resolution = parse_resolution(code)
        if resolution is None or symbol_name not in self._symbols:
            raise self._invalid("create_series", [name, turn, symbol_name, code, *asked])
        self._outlet.send_stamped("series_loading", [self._name, name, turn])
        symbol = self._symbols[symbol_name]
        refusal = resolution.refusal(self._outlet.plan) if symbol is not None else "resolve error"
        if symbol is None or refusal is not None:
            error = [self._name, name, turn, refusal, packets.NODE]
            self._outlet.send_stamped("series_error", error)
            return
        series = Series(name, turn, symbol, resolution, _count(asked))
        history, series.live = await asyncio.to_thread(_asked, self._archive(series), asked)
        series.bars = history.bars
        self._series[name] = series
        self._send_history(series, history)

    async def _modify_series(
        self, name: str, turn: str, symbol_name: str, code: str, asked: list[Any]
    ) -> None:
        """Create the series anew: a range or a count in *asked*, else the count it had."""
        before = self._series.pop(name, None)
        given = [part for part in asked if part not in ("", None)]
        if not given or isinstance(given[0], str):
            given = [before.count if before is not None else DEFAULT_COUNT, *given]
        await self._create_series(name, turn, symbol_name, code, given)
        await self._restart_studies(self._series.get(name))

    async def _more(self, series: Series, count: int) -> None:
        archive = self._archive(series)
        oldest = series.opened_first or archive.now
        history = await asyncio.to_thread(archive.last, max(count, 1), oldest)
        series.bars[:0] = history.bars
        self._send_history(series, history)
        if history.bars:
            series.warm_up = []
            await self._restart_studies(series)

    async def _restart_studies(self, series: Series | None) -> None:
        if series is not None and self._studies.watches(series):
            await self._warm_up(series)
            self._studies.restart(series)

    async def _warm_up(self, series: Series | None) -> None:
        """Load what came before *series*, so that a study has values from its first bar on."""
        if series is not None and series.opened_first is not None and not series.warm_up:
            archive = self._archive(series)
            history = await asyncio.to_thread(archive.last, WARM_UP, series.opened_first)
            series.warm_up = history.bars

    def _archive(self, series: Series) -> Archive:
        return Archive(
            self._world.market,
            series.symbol,
            series.resolution,
            self._outlet.plan,
            opens_at=self._world.opens_at,
            now=self._world.position,
        )

    def _send_history(self, series: Series, history: History) -> None:
        bars = history.bars
        if bars:
            content = packets.history(series.turnaround, bars, series.close_of(bars[-1]))
            update = [self._name, {series.name: content}, packets.timescale(bars, 0)]
            self._outlet.send_stamped("timescale_update", update)
            frame = [self._name, series.name, series.turnaround, 0, len(bars) - 1, None, True]
            self._outlet.send("series_timeframe", frame)
        flags: dict[str, Any] = {"rt_update_period": 0}
        if history.completed is not None:
            flags["data_completed"] = history.completed
        mode = self._world.update_mode()
        completed = [self._name, series.name, mode, series.turnaround, flags]
        self._outlet.send_stamped("series_completed", completed)

    def _push(self, series: Series, at: datetime) -> None:
        since = series.opened_last or series.resolution.floor(at)
        fresh = load_bars(self._world.market, series.symbol, series.resolution, since, at)
        changed = 0
        for bar in fresh:
            if series.bars and bar == series.bars[-1]:
                continue
            changed += 1
            is_new = series.add(bar)
            index = len(series.bars) - 1
            content = packets.live(series.turnaround, index, bar, series.close_of(bar))
            if is_new:
                update = [self._name, {series.name: content}, packets.timescale([bar], index)]
                self._outlet.send_stamped("timescale_update", update)
            else:
                self._outlet.send("du", [self._name, {series.name: content}])
        if changed:
            self._studies.push(series, changed)

    def _invalid(self, method: str, arguments: list[Any]) -> Refused:
        listed = ", ".join(map(str, arguments))
        return Refused(self._name, "invalid parameters", f'method: {method}. args: "[{listed}]"')


def _count(asked: list[Any]) -> int:
    return max(asked[0], 1) if isinstance(asked[0], int) else DEFAULT_COUNT


def _asked(archive: Archive, asked: list[Any]) -> tuple[History, bool]:
    """Return the bars asked for, and whether they reach the present.

    Asked is a count, ``["bar_count", to, n]``, or further on a range ``r,from:to``.
    """
    for part in asked[1:]:
        if isinstance(part, str) and part.startswith("r,"):
            start, _, end = part.removeprefix("r,").partition(":")
            if start.isdigit() and end.isdigit():
                until = datetime.fromtimestamp(int(end), UTC)
                history = archive.within(datetime.fromtimestamp(int(start), UTC), until)
                return history, until >= archive.now
    match asked[0]:
        case ["bar_count", int() | float() as to, int(number)]:
            until = datetime.fromtimestamp(to, UTC) + timedelta(seconds=1)
            if number < 0:
                return archive.first(-number, until), False
            return archive.last(max(number, 1), min(until, archive.now)), until >= archive.now
        case _:
            return archive.last(_count(asked), archive.now), True
