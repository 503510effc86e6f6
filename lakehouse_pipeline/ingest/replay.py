"""A recording into the lake: the same decoder, session logic, spool and sink, in recorded time.

The writer's identity is made from the file's content and the same file gives the same rows with
the same numbers, so replaying it again, also after a crash in the middle, adds nothing twice. A
recording may hold symbols of several exchanges; each is replayed as its own worker would have
recorded it.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from lakehouse_pipeline.errors import InputFileError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.market.coverage import Ending
from lakehouse_pipeline.settings import Settings
from lakehouse_pipeline.tradingview.messages import Event, Heartbeat, QuoteCompleted, QuoteUpdate
from lakehouse_pipeline.tradingview.protocol import ClientProtocol

from .locking import spool_lock
from .rows import QUOTES, REJECTS, Entry, instant
from .session import SECOND, SessionRecorder
from .sink import Sink
from .spool import SUFFIX, Spool, remove_database

log = structlog.get_logger()

NAMESPACE = uuid.UUID("6f1d1d5e-3c0f-4e55-9a39-0d8d4b1d6a11")
BATCH = 5_000  # entries spooled at once


class RecordedLine(msgspec.Struct, frozen=True):
    """One line of a recording: a websocket message, or a connection's begin or end."""

    received_at: int  # epoch µs
    session: str
    text: str | None = None
    event: str | None = None  # opened or closed


@dataclass
class ReplayReport:
    """What a recording held, over all its exchanges."""

    messages: int = 0
    sessions: int = 0
    quotes: int = 0
    rejects: int = 0


def replay(settings: Settings, path: Path) -> ReplayReport:
    """Put the recording at *path* into the lake of *settings*.

    Raises:
        InputFileError: the file cannot be read or is no recording; nothing landed.
        LakeError: the lake is away; replaying again completes it.
    """
    report, subscribed = _survey(path)
    identity = _digest(path)
    with Lakehouse.open(settings) as lake:
        for exchange, symbols in subscribed.items():
            writer_id = uuid.uuid5(NAMESPACE, f"{identity} {exchange}").hex
            spool = _fresh_spool(settings.state_dir / "replay" / exchange / f"{writer_id}{SUFFIX}")
            sink = Sink(lambda: lake, exchange, max_rows=settings.ingest.commit_rows)
            part = _Part(exchange, symbols, is_first=exchange == next(iter(subscribed)))
            try:
                counts = _land(part.entries(path), spool, sink, settings.ingest.commit_rows)
            except BaseException:
                spool.close()
                raise
            report.quotes += counts[QUOTES]
            report.rejects += counts[REJECTS]
            spool.delete()
            log.info("recording_replayed", file=str(path), exchange=exchange, **counts)
    return report


def _land(
    entries: Iterator[list[Entry]], spool: Spool, sink: Sink, commit_rows: int
) -> Counter[str]:
    """Spool and commit *entries* with bounded memory; return how many there were by target."""
    counts: Counter[str] = Counter()
    for batch in _batches(entries):
        counts.update(target for target, _ in batch)
        spool.append(batch)
        if counts.total() // commit_rows > (counts.total() - len(batch)) // commit_rows:
            sink.commit(spool)
    while sink.commit(spool) is not None:
        pass
    return counts


def _batches(entries: Iterator[list[Entry]]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for some in entries:
        batch += some
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _Part:
    """One exchange's part of a recording; the first one also gets what belongs to none."""

    def __init__(self, exchange: str, symbols: Collection[str], *, is_first: bool) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._is_first = is_first

    def entries(self, path: Path) -> Iterator[list[Entry]]:
        """Yield what the exchange's worker would have spooled, in order."""
        sessions: dict[str, tuple[SessionRecorder, ClientProtocol]] = {}
        for line in _lines(path):
            at = line.received_at
            if line.session not in sessions:
                recorder = SessionRecorder(line.session, opened_at=at)
                recorder.subscribe(self._symbols)
                sessions[line.session] = recorder, ClientProtocol()
                yield recorder.opened(detail="replayed")
            recorder, protocol = sessions[line.session]
            if line.event == "closed":
                yield recorder.ended(Ending.CLOSED)
                del sessions[line.session]
            elif line.text is not None:
                events = protocol.receive_text(line.text, instant(at))
                protocol.texts_to_send()  # the recorder has answered long ago
                if at - recorder.marked_until >= SECOND:
                    yield recorder.tick()
                yield recorder.receive([event for event in events if self._concerns(event)], at)
        for recorder, _ in sessions.values():
            yield recorder.ended(Ending.STOPPED, "the recording ends here")

    def _concerns(self, event: Event) -> bool:
        if isinstance(event, QuoteUpdate | QuoteCompleted):
            exchange = _exchange_of(event.name)
            return exchange == self._exchange or (self._is_first and exchange is None)
        return self._is_first or isinstance(event, Heartbeat)


def _survey(path: Path) -> tuple[ReplayReport, dict[str, list[str]]]:
    """Read the whole file once: what it holds, and the symbols of each exchange."""
    report, protocol = ReplayReport(), ClientProtocol()
    sessions: set[str] = set()
    names: set[str] = set()
    for line in _lines(path):
        sessions.add(line.session)
        if line.text is not None:
            report.messages += 1
            events = protocol.receive_text(line.text, instant(line.received_at))
            protocol.texts_to_send()
            names.update(event.name for event in events if isinstance(event, QuoteUpdate))
    report.sessions = len(sessions)
    exchanges: dict[str, list[str]] = {}
    for name in sorted(names):
        if (exchange := _exchange_of(name)) is not None:
            exchanges.setdefault(exchange, [])
            if not name.startswith("="):
                exchanges[exchange].append(name)
    if not exchanges:
        raise InputFileError(f"{path} holds no quotes.", mend="Record some first: feed record.")
    return report, exchanges


def _exchange_of(name: str) -> str | None:
    """Return the exchange of a plain or extended symbol name."""
    found = re.search(r"([A-Z][A-Z0-9_]*):[A-Z0-9]", name)
    return found[1] if found else None


def _lines(path: Path) -> Iterator[RecordedLine]:
    decode = msgspec.json.Decoder(RecordedLine).decode
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    yield decode(text)
                except msgspec.MsgspecError as error:
                    if not text.endswith(b"\n"):
                        log.warning("recording_torn", file=str(path), line=number)
                        return
                    raise InputFileError(
                        f"{path} line {number} is no recorded message: {error}."
                    ) from error
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}.") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fresh_spool(path: Path) -> Spool:
    """Return an empty spool; what an unfinished replay left is made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with spool_lock(path):
        remove_database(path)
    return Spool(path)
