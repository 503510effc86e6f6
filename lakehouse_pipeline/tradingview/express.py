"""The shortest way of the most frequent text: one quote update, alone in its message.

Nearly all that a recording worker receives is such a text, spelled the same way each time. Where
one differs in the least (another envelope, another session, a field of another type, a refusal),
``read`` returns None and ``ClientProtocol`` has to look: nothing is decided here, only saved.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from .frames import encode

LONGEST = 512  # characters; updates are far shorter, first snapshots and history go the long way
_NAME_TO_VALUES = '","s":"ok","v":'
_ENDING = "}]}"

V = TypeVar("V")


class ExpressReader(Generic[V]):
    """Reads the updates of one quote session.

    Args:
        session: the client's own name of it.
        shape: what the values of an update must look like; fields it does not name are left out.
    """

    def __init__(self, session: str, shape: type[V]) -> None:
        # Any: a message as the wire has it.
        opening: Any = msgspec.json.encode({"m": "qsd", "p": [session, {"n": ""}]}).decode()
        opening = opening[: opening.rindex('"')]
        self._openings = _openings_by_length(opening)
        self._decode = msgspec.json.Decoder(shape).decode

    def read(self, text: str) -> tuple[str, V] | None:
        """Return the symbol's name and its values, or None: the text is something else."""
        opening = self._openings.get(len(text))
        if opening is None or not text.startswith(opening) or not text.endswith(_ENDING):
            return None
        start = len(opening)
        end = text.find(_NAME_TO_VALUES, start)
        name = text[start:end]
        if end < 0 or "\\" in name:
            return None
        try:
            return name, self._decode(text[end + len(_NAME_TO_VALUES) : -len(_ENDING)])
        except ValueError:
            return None


def _openings_by_length(opening: str) -> dict[int, str]:
    """Return how a text of each length begins, envelope included: its length is then right."""
    texts = (encode(opening.ljust(length)) for length in range(len(opening), LONGEST))
    return {len(text): text.rstrip() for text in texts}
