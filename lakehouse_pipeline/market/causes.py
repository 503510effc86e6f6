"""Why a symbol was not seen: what the coverage marks say about one hole.

Add a cause here together with the marks that prove it. Where holes are, and what they cost,
belongs to ``gaps``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from heapq import merge

import polars as pl

from lakehouse_pipeline.market.coverage import (
    LATENESS,
    Ending,
    Mark,
    session_windows,
    subscriptions,
)
from lakehouse_pipeline.market.windows import TimeWindow, intersect

_INSTANT = timedelta(microseconds=1)


class Cause(StrEnum):
    """Why nothing was recorded. In the last three nothing was missed.

    ``unsubscribed`` is no gap and not in the ledger: readers who need every time without data add
    it (``gaps.with_pauses``).
    """

    WORKER_DOWN = "worker_down"  # none ran
    FEED_GAP = "feed_gap"  # the feed closed, refused us or sent no frame
    SUBSCRIPTION_LOST = "subscription_lost"  # the feed would not give the symbol
    SYMBOL_STALLED = "symbol_stalled"  # the symbol fell silent while others ticked
    BACKPRESSURE_DROP = "backpressure_drop"  # we could not keep up and dropped updates
    UNSUBSCRIBED = "unsubscribed"  # nobody wanted the symbol
    UPSTREAM_DELAYED = "upstream_delayed"  # the feed said that it was delayed
    VENUE_HALT = "venue_halt"  # seen all the time, and no symbol of the exchange was traded
    QUIET_MARKET = "quiet_market"  # seen all the time, and nothing was traded


# A delayed feed delivers in the end; in a halt or a quiet time there is nothing to deliver.
UNSEEN = frozenset(Cause) - {Cause.UPSTREAM_DELAYED, Cause.VENUE_HALT, Cause.QUIET_MARKET}
BLIND = UNSEEN - {Cause.UNSUBSCRIBED}  # a gap: what was wanted and not seen

_OF_MARK = {
    Mark.SHED: Cause.BACKPRESSURE_DROP,
    Mark.STALLED: Cause.SYMBOL_STALLED,
    Mark.REFUSED: Cause.SUBSCRIPTION_LOST,
}
# Endings that were the feed's doing. After all others it was a worker that was missing: also after
# a hand-over, behind which there is no hole unless the successor ended as well.
_OF_THE_FEED = frozenset({Ending.CLOSED, Ending.SILENT, Ending.REFUSED, Ending.BANNED})


Told = tuple[int, str, str, datetime, datetime, str | None]  # place, kind, session, from, to, why


@dataclass(frozen=True, slots=True)
class Session:
    """One session's life as its marks tell it."""

    name: str
    first: datetime
    last: datetime  # last received frame
    reason: str | None  # None: nobody recorded an ending
    alive: list[TimeWindow]


@dataclass(frozen=True, slots=True)
class Testimony:
    """The marks of one exchange, arranged to be asked about holes."""

    sessions: list[Session]  # by first frame
    subscribed: dict[str, set[str]]  # symbol → its sessions
    marks: dict[str | None, list[Told]]  # by symbol, of all of a session under None; by start

    @classmethod
    def of(cls, coverage: pl.DataFrame) -> Testimony:
        """Return the testimony of *coverage*."""
        alive = session_windows(coverage)
        reasons = dict(
            coverage.filter(pl.col("kind") == Mark.ENDED)
            .sort("end")
            .select("session_id", "reason")
            .iter_rows()
        )
        lives = coverage.group_by("session_id").agg(pl.col("start").min(), pl.col("end").max())
        subscribed: defaultdict[str, set[str]] = defaultdict(set)
        for session, symbol in subscriptions(coverage):
            subscribed[symbol].add(session)
        marks: defaultdict[str | None, list[Told]] = defaultdict(list)
        told = (
            coverage.filter(pl.col("kind").is_in(list(_OF_MARK)))
            .sort("start", "writer_id", "sequence")
            .select("symbol", "kind", "session_id", "start", "end", "reason")
        )
        for place, (symbol, *mark) in enumerate(told.iter_rows()):
            marks[symbol].append((place, *mark))
        return cls(
            sessions=[
                Session(name, first, last, reasons.get(name), alive.get(name, []))
                for name, first, last in lives.sort("start", "session_id").iter_rows()
            ],
            subscribed=dict(subscribed),
            marks=dict(marks),
        )

    def explain(self, symbol: str, hole: TimeWindow) -> tuple[Cause, str]:
        """Return why *symbol* was not seen in *hole*, and what says so."""
        of_all = (mark for mark in self.marks.get(None, []) if mark[2] in self.subscribed[symbol])
        for _, kind, session, start, end, reason in merge(self.marks.get(symbol, []), of_all):
            if start < hole.end and max(end, start) >= hole.start:
                text = f"session {session[:8]} {kind} at {_clock(start)}: {reason or 'no reason'}"
                return _OF_MARK[Mark(kind)], text
        open_session = self._session_around(symbol, hole)
        if open_session is not None:
            text = f"session {open_session.name[:8]} was open and received no frame"
            return Cause.FEED_GAP, text
        before = self._last_session(symbol, hole)
        if before is None:
            return Cause.WORKER_DOWN, "no session recorded before it"
        ending = before.reason or "without a recorded end"
        text = f"session {before.name[:8]} ended {ending}, last frame {_clock(before.last)}"
        later = [s for s in self.sessions if before.last <= s.first < hole.end]
        if later:
            text += f", next session {later[0].name[:8]} at {_clock(later[0].first)}"
        silent = sum((self._alive(s, hole) for s in later), start=timedelta())
        if silent * 2 > hole.length:
            return Cause.SUBSCRIPTION_LOST, f"{text}, alive for {silent} without the symbol"
        cause = Cause.FEED_GAP if before.reason in _OF_THE_FEED else Cause.WORKER_DOWN
        return cause, text

    def _session_around(self, symbol: str, hole: TimeWindow) -> Session | None:
        """Return a session of the symbol that went on after the hole and had no frame in it."""
        names = self.subscribed[symbol]
        # A hole begins its lateness before the last frame, and that stretch was alive.
        silent = TimeWindow(min(hole.start + LATENESS, hole.end - _INSTANT), hole.end)
        for session in self.sessions:
            around = session.first <= hole.start and session.last >= hole.end
            if session.name in names and around and self._alive(session, silent) <= _INSTANT:
                return session
        return None

    def _last_session(self, symbol: str, hole: TimeWindow) -> Session | None:
        """Return the symbol's session that had begun before the hole and ended last."""
        names = self.subscribed[symbol]
        ended = [
            s
            for s in self.sessions
            if s.name in names and s.first <= hole.start and s.last < hole.end
        ]
        return max(ended, key=lambda s: (s.last, s.first), default=None)

    @staticmethod
    def _alive(session: Session, hole: TimeWindow) -> timedelta:
        parts = intersect(session.alive, [hole])
        return sum((part.length for part in parts), start=timedelta())


def _clock(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
