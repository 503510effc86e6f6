"""The shortest way of the most frequent text: one quote update, alone in its message, to its row.

Nearly all that a recording worker receives is such a text, spelled the same way each time. Where
one differs in the least (another envelope, another session, a field of another type, a refusal, a
symbol not yet restored), ``receive`` returns None and the long way has to look: nothing is decided
here, only saved. ``receive`` is one function because calls would cost as much as its work.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lakehouse_pipeline.tradingview.server_protocol import dump

from .credible import DAY, Credible
from .line import CHANGED, EVENT_TIME, KIND, LAST_TIME, PLACES, RECEIVED_AT, Line, Meaning, meaning
from .rows import QUOTES, Entry
from .session import SECOND, SessionRecorder

# A text is a head, this, the values and this. The head says envelope, session and symbol.
_NAME_TO_VALUES = '","s":"ok","v":'
_ENDING = "}]}"
_ENVELOPE = re.compile(r"~m~([0-9]{1,10})~m~")
MOST_HEADS = 65_536  # symbols times lengths of a text; some 10 MB
MOST_MEANINGS = 4_096

_decode = msgspec.json.Decoder(Credible).decode


class Express:
    """Reads the updates of one quote session into its recorder's lines.

    Args:
        session: the client's own name of it.
    """

    def __init__(self, session: str, recorder: SessionRecorder) -> None:
        self._recorder = recorder
        self._opening = f'{{"m":"qsd","p":[{dump(session)},{{"n":"'
        self._heads: dict[str, tuple[Line, int]] = {}  # with the length of the values
        self._meanings: dict[tuple[str, ...], Meaning] = {}
        self._latest = 0  # the latest credible lp_time, or one that was

    def receive(self, text: str, at: int) -> Entry | None:  # noqa: C901, PLR0911, PLR0912  # see above
        """Return the entry that *text*, received *at*, becomes, or None: nothing happened yet."""
        head, _, tail = text.partition(_NAME_TO_VALUES)
        try:
            line, size = self._heads[head]
        except KeyError:
            found = self._learn(head)
            if found is None:
                return None
            line, size = found
        if line.restoring or line.awaited:
            del self._heads[head]  # it may have been unsubscribed
            return None
        recorder = self._recorder
        if not 0 <= at - recorder.last_frame <= recorder.longest_pause:
            return None
        content = tail.removesuffix(_ENDING)
        if len(content) != size:  # so what was removed is the ending
            return None
        try:
            values: dict[str, Any] = _decode(content)  # type: ignore[assignment]
        except ValueError:
            return None
        keys = tuple(values)
        try:
            kind, happened, changed = self._meanings[keys]
        except KeyError:
            kind, happened, changed = self._mean(keys)
        row = line.row
        event_time = at
        if "lp_time" in values:
            last_time = values["lp_time"]
            if last_time > self._latest:
                self._latest = at // SECOND + DAY
                if last_time > self._latest:
                    return None
            values["lp_time"] = last_time = last_time * SECOND
            if happened:
                event_time = last_time
        elif happened and row[LAST_TIME] is not None:
            event_time = row[LAST_TIME]
        recorder.last_frame = line.last_data = at
        places = PLACES
        for key, value in values.items():
            row[places[key]] = value
        row[EVENT_TIME] = event_time
        row[RECEIVED_AT] = at
        row[KIND] = kind
        row[CHANGED] = changed
        return QUOTES, row.copy()

    def _learn(self, head: str) -> tuple[Line, int] | None:
        """Return what a new head speaks of, or None where it is no head of ours."""
        envelope = _ENVELOPE.match(head)
        if envelope is None or not head.startswith(self._opening, envelope.end()):
            return None
        line = self._recorder.line(head[envelope.end() + len(self._opening) :])
        if line is None:
            return None
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        around = len(head) + len(_NAME_TO_VALUES) + len(_ENDING)
        found = self._heads[head] = line, envelope.end() + int(envelope[1]) - around
        return found

    def _mean(self, keys: tuple[str, ...]) -> Meaning:
        if len(self._meanings) >= MOST_MEANINGS:
            self._meanings.clear()
        found = self._meanings[keys] = meaning(frozenset(keys), restoring=False)
        return found
