"""``lakehouse feed serve``: one feed server as a process, until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lakehouse_pipeline.errors import UsageError

from .fault_file import read_faults
from .generated import DEFAULT_SYMBOLS, generated_market
from .market import Counter, Market
from .recording import recording_market
from .server import FeedServer
from .trades import trades_market

MARKETS = ("generated", "trades", "recording")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of the command; *symbols* are full names, empty means all there are."""

    port: int = 0
    market: str | None = None  # one of MARKETS; None: what the files say
    trades: Mapping[str, Path] = field(default_factory=dict)
    quotes: Mapping[str, Path] = field(default_factory=dict)
    recording: Path | None = None
    symbols: tuple[str, ...] = ()
    seed: int = 0
    start: datetime | None = None  # the market's own default when None
    speed: float = 1.0
    counter: Counter = Counter.SESSION
    faults: Path | None = None
    tokens: tuple[str, ...] = ()
    deflate: bool = True
    strict: bool = False


def run(options: ServeOptions) -> None:
    """Serve until SIGINT or SIGTERM; the first lines on stdout say where.

    Raises:
        UsageError: an option or a file is wrong.
        PortInUse: the port is taken.
    """
    asyncio.run(_serve(options))


def symbol_files(values: Iterable[str]) -> dict[str, Path]:
    """Return the files of ``SYMBOL=FILE`` arguments.

    Raises:
        UsageError: an argument is written otherwise.
    """
    files = {}
    for value in values:
        symbol, separator, path = value.partition("=")
        if not separator or not path:
            raise UsageError(f"{value!r} is no SYMBOL=FILE.")
        files[symbol] = Path(path)
    return files


def instant(text: str) -> datetime:
    """Return the UTC instant *text* means: ``now`` or ISO 8601, UTC unless it says otherwise.

    Raises:
        UsageError: it is neither.
    """
    if text == "now":
        return datetime.now(UTC)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"Time {text!r} is malformed.", mend="Write it as 2024-08-08T23:55:00Z, or now."
        ) from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def make_market(options: ServeOptions) -> Market:
    """Return the market *options* ask for."""
    match options.market or _market_of_files(options):
        case "generated" if options.trades or options.recording:
            raise UsageError(
                "A generated market takes no file.", mend="Say --market trades or recording."
            )
        case "generated":
            return generated_market(options.symbols or DEFAULT_SYMBOLS, seed=options.seed)
        case "trades":
            chosen = {s: p for s, p in options.trades.items() if s in (options.symbols or (s,))}
            return trades_market(chosen, options.quotes, start=options.start)
        case "recording" if options.recording is not None:
            return recording_market(options.recording, options.symbols, start=options.start)
        case "recording":
            raise UsageError("A recorded market needs its file.", mend="Give --recording FILE.")
        case other:
            raise UsageError(f"Market {other!r} is unknown.", mend=f"Known: {', '.join(MARKETS)}.")


def _market_of_files(options: ServeOptions) -> str:
    if options.recording is not None:
        return "recording"
    return "trades" if options.trades else "generated"


async def _serve(options: ServeOptions) -> None:
    if options.speed <= 0:
        raise UsageError(f"Speed was {options.speed}.", mend="Give a number above 0.")
    if not 0 <= options.port <= 65_535:
        raise UsageError(f"Port was {options.port}.", mend="Give 0 to 65535; 0 is any free one.")
    server = FeedServer(
        make_market(options),
        port=options.port,
        start=options.start,
        speed=options.speed,
        counter=options.counter,
        faults=read_faults(options.faults) if options.faults is not None else (),
        tokens=options.tokens,
        deflate=options.deflate,
        strict=options.strict,
        keep_sent=False,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with server:
        print(f"LISTENING {server.url}", flush=True)  # noqa: T201  # the command's promise
        print(f"HTTP {server.http_url}", flush=True)  # noqa: T201  # the command's promise
        await server.run_until(stop)
