"""The envelope ``~m~LENGTH~m~PAYLOAD``: several of them make one websocket message.

LENGTH counts UTF-16 code units, as JavaScript's ``String.length`` does. A payload may itself hold
``~m~12~m~``, so only walking by length is right; splitting by pattern is not. Whether the real feed
ever sends raw non-ASCII text is unproven, so a length that does not fit is tried as code points and
then as UTF-8 bytes. What a payload *means* belongs to ``messages``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEADER = re.compile(r"~m~([0-9]{1,10})~m~")
# After garbage only a header that announces what we know is believed.
RESUME = re.compile(r"~m~[0-9]{1,10}~m~(?=\{|~h~)")
ASTRAL = re.compile("[\U00010000-\U0010ffff]")  # two UTF-16 code units each


def encode(payload: str) -> str:
    """Return *payload* in its envelope, its length counted in UTF-16 code units."""
    return f"~m~{utf16_length(payload)}~m~{payload}"


def utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text) + len(ASTRAL.findall(text))


class FrameDecoder:
    """Takes websocket messages apart; each is complete in itself, only the counters last."""

    def __init__(self) -> None:
        self.errors = 0
        """Places where the text was no envelope, since the beginning."""
        self.skipped_characters = 0
        """Characters passed over at those places."""
        self.skipped: list[str] = []
        """The texts passed over in the last message, so that the caller can keep them."""

    def decode(self, text: str) -> list[str]:
        """Return the payloads of one websocket message, in order, whatever the text is."""
        if self.skipped:
            self.skipped = []
        if not text.isascii():
            return self._walk(text, _any_end)
        # Nearly every message is one ASCII envelope: its length is that of all the rest.
        parts = text.split("~m~", 2)
        if len(parts) == 3 and not parts[0] and parts[1] == str(len(parts[2])):
            return parts[2:]
        return self._walk(text, _ascii_end)

    def _walk(self, text: str, payload_end: Callable[[str, int, int], int | None]) -> list[str]:
        payloads: list[str] = []
        position, size = 0, len(text)
        while position < size:
            header = HEADER.match(text, position)
            start = header.end() if header else position
            end = payload_end(text, start, int(header[1])) if header else None
            if end is None:
                position = self._skip(text, position, start)
            else:
                payloads.append(text[start:end])
                position = end
        return payloads

    def _skip(self, text: str, position: int, search_from: int) -> int:
        """Return where the next believable envelope begins, and keep what lies before it."""
        resume = RESUME.search(text, search_from)
        end = resume.start() if resume else len(text)
        self.errors += 1
        self.skipped_characters += end - position
        self.skipped.append(text[position:end])
        return end


def _fits(text: str, end: int) -> bool:
    return end == len(text) or (end < len(text) and HEADER.match(text, end) is not None)


def _ascii_end(text: str, start: int, length: int) -> int | None:
    """Return the end of the payload where all three units agree."""
    end = start + length
    return end if _fits(text, end) else None


def _any_end(text: str, start: int, length: int) -> int | None:
    """Return the first end that fits: by UTF-16 units, by code points, by UTF-8 bytes."""
    for measure in (_utf16_end, _ascii_end, _utf8_end):
        end = measure(text, start, length)
        if end is not None and _fits(text, end):
            return end
    return None


def _utf16_end(text: str, start: int, length: int) -> int | None:
    end = start + length
    for astral in ASTRAL.finditer(text, start, min(end, len(text))):
        if astral.start() >= end:
            break
        end -= 1
        if astral.start() == end:  # the length ends between the two halves of a character
            return None
    return end


def _utf8_end(text: str, start: int, length: int) -> int | None:
    data = text[start : start + length].encode("utf-8", "surrogatepass")
    if length > len(data):
        return None
    try:
        return start + len(data[:length].decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:  # the length ends inside a character
        return None
