"""``lakehouse doctor``: is everything in order, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from lakehouse_pipeline.errors import LakehouseError, SettingsError

if TYPE_CHECKING:
    from lakehouse_pipeline.ingest.facts import FeedFacts
    from lakehouse_pipeline.settings import Settings

MIN_FREE_BYTES = 1 << 30
SYMBOLS_PATIENCE = timedelta(seconds=15)  # for the answers to all subscriptions
COLORS = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "FAIL": typer.colors.RED}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to *app*."""
    app.command()(doctor)


def doctor(
    listen: Annotated[
        int, typer.Option(help="seconds to listen to the feed and record what it is like")
    ] = 0,
) -> None:
    """Check configuration, storage, lake, feed, every symbol, ports and Dagster; say the mend."""
    from lakehouse_pipeline.build.indicators import studies_of
    from lakehouse_pipeline.settings import load_settings

    settings = load_settings()
    if not settings.exchanges:
        raise SettingsError(
            f"No exchange is configured: {settings.config} is missing or names none.",
            mend="Write one under 'exchanges:', or set LAKEHOUSE_CONFIG.",
        )
    count = sum(len(exchange.symbols) for exchange in settings.exchanges.values())
    studies = ", ".join(study.name for study in studies_of(settings.indicators)) or "no indicators"
    _say("ok", "settings", f"{len(settings.exchanges)} exchanges, {count} symbols, {studies}")
    checks: dict[str, Callable[[Settings], str]] = {
        "state": _check_state,
        "lake": _check_lake,
        "feed": _check_feed,
        "symbols": _check_symbols,
        "ports": _check_ports,
        "dagster": _check_dagster,
    }
    failed: list[str] = []
    for name, check in checks.items():
        if name == "symbols" and "feed" in failed:
            continue  # there is nobody to ask
        if not _passes(name, check, settings):
            failed.append(name)
    if listen and "feed" not in failed:
        for line in _listen(settings, listen):
            _say("ok", "feed", line)
    if failed:
        raise typer.Exit(1)


def _passes(name: str, check: Callable[[Settings], str], settings: Settings) -> bool:
    try:
        _say("ok", name, check(settings))
    except LakehouseError as error:
        _say("FAIL", name, str(error))
        return False
    return True


def _say(verdict: str, name: str, detail: str) -> None:
    color = COLORS[verdict]
    typer.echo(f"{typer.style(f'{verdict:<4}', fg=color)} {name:<9} {detail}")


def _check_state(settings: Settings) -> str:
    import shutil
    import tempfile

    from lakehouse_pipeline.errors import StateDirectoryError

    folder = settings.state_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise StateDirectoryError(
            f"State directory {folder} cannot be written: {error.strerror}.",
            mend="Mend its permissions or set LAKEHOUSE_STATE_DIR.",
        ) from error
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise StateDirectoryError(
            f"State directory {folder} has only {free >> 20} MiB left.",
            mend="Make room or set LAKEHOUSE_STATE_DIR to another disk.",
        )
    return f"{folder}, {free >> 30} GiB free"


def _check_lake(settings: Settings) -> str:
    from lakehouse_pipeline.errors import TableDamaged
    from lakehouse_pipeline.lake.health import examine
    from lakehouse_pipeline.lake.lakehouse import Lakehouse
    from lakehouse_pipeline.lake.tables import TABLES

    with Lakehouse.inspect(settings) as lake:
        *others, last = [None, *examine(lake)]
    for finding in others[1:]:
        _say("FAIL", "lake", str(finding))
    if last is not None:
        raise TableDamaged(f"{last.table}: {last.problem}", mend=last.mend)
    lake = Lakehouse.open(settings)
    rows = sum(int(lake.files(table)["rows"].sum()) for table in TABLES)
    return f"{len(TABLES)} tables, {rows} rows"


def _check_feed(settings: Settings) -> str:
    import asyncio
    from datetime import UTC, datetime

    from lakehouse_pipeline.errors import FeedError, FeedUnreachable
    from lakehouse_pipeline.tradingview.client import connect

    async def greet() -> str:
        async with connect(settings.feed, now=lambda: datetime.now(UTC)) as connection:
            return connection.hello.release

    try:
        release = asyncio.run(greet())
    except FeedError as error:
        raise FeedUnreachable(
            f"{error}", mend="Check the network, and LAKEHOUSE_FEED__URL or 'feed:'."
        ) from error
    who = "with a token" if settings.feed.token else "anonymous"
    return f"greets as {release}, {who}"


def _check_symbols(settings: Settings) -> str:
    import asyncio
    from datetime import UTC, datetime

    from lakehouse_pipeline.errors import FeedError, FeedUnreachable
    from lakehouse_pipeline.ingest.trial import Verdict, try_symbols

    names = [name for exchange in settings.exchanges for name in settings.symbols(exchange)]
    try:
        answers = asyncio.run(
            try_symbols(
                settings.feed, names, patience=SYMBOLS_PATIENCE, now=lambda: datetime.now(UTC)
            )
        )
    except FeedError as error:
        raise FeedUnreachable(
            f"The feed left before it said which symbols it gives: {error}",
            mend="Try again in a minute.",
        ) from error
    refused = [answer for answer in answers if answer.verdict is Verdict.REFUSED]
    for answer in answers:
        if answer.verdict is Verdict.DELAYED:
            _say("note", "symbols", f"{answer.symbol} is delayed ({answer.detail})")
        elif answer.verdict is Verdict.SILENT:
            waited = f"{SYMBOLS_PATIENCE.total_seconds():g} s"
            _say("note", "symbols", f"{answer.symbol} did not answer within {waited}")
    if refused:
        named = ", ".join(f"{answer.symbol} ({answer.detail})" for answer in refused)
        raise SettingsError(
            f"The feed refuses {len(refused)} of {len(names)} symbols: {named}.",
            mend=f"Mend their names in {settings.config}, or set a token that may see them.",
        )
    given = sum(answer.verdict in {Verdict.GIVEN, Verdict.DELAYED} for answer in answers)
    return f"{given} of {len(names)} are given"


def _check_ports(settings: Settings) -> str:
    from lakehouse_pipeline.stack.layout import Layout
    from lakehouse_pipeline.stack.processes import choose_port

    owner, _ = Layout(settings.resolved().state_dir).read_state()
    if owner is not None and owner.alive:
        return f"process {owner.pid} runs the stack"
    ui, grpc = settings.ui, settings.grpc
    choose_port(ui.host, ui.port, setting="LAKEHOUSE_UI__PORT")
    choose_port(grpc.host, grpc.port, setting="LAKEHOUSE_GRPC__PORT")
    return f"{ui.port} and {grpc.port} are free"


def _check_dagster(_settings: Settings) -> str:
    from importlib.metadata import version

    return f"{version('dagster')}, webserver {version('dagster-webserver')}"


def _listen(settings: Settings, seconds: int) -> Iterator[str]:
    import asyncio
    from datetime import UTC, datetime

    import msgspec

    from lakehouse_pipeline.ingest.facts import observe

    names = [name for exchange in settings.exchanges for name in settings.symbols(exchange)]
    facts = asyncio.run(
        observe(
            settings.feed,
            names,
            listen_for=timedelta(seconds=seconds),
            now=lambda: datetime.now(UTC),
        )
    )
    yield from _lines(facts)
    reports = settings.state_dir / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    report = reports / f"feed-facts-{facts.since:%Y%m%dT%H%M%SZ}.json"
    report.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))
    yield f"recorded in {report}"


def _lines(facts: FeedFacts) -> Iterator[str]:
    def every(seconds: float | None) -> str:
        return "not seen twice" if seconds is None else f"every {seconds:g} s"

    yield f"heartbeat {every(facts.heartbeat_seconds)}"
    yield (
        f"price {every(facts.price_seconds)}, volume {every(facts.volume_seconds)}, "
        f"bid/ask {every(facts.bid_ask_seconds)} a symbol (medians)"
    )
    yield (
        f"volume counter: {facts.counter_kind} ({facts.volume_steps} steps, {facts.volume_falls} "
        f"falls, {facts.volume_falls_at_midnight} of them at midnight UTC)"
    )
    yield f"update modes: {', '.join(facts.update_modes) or 'none seen'}"
    if facts.refused:
        yield f"refused symbols: {', '.join(facts.refused)}"
