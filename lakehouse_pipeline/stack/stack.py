"""One owner for every process of a deployment: the order of start, of stop, and the signals.

Started: Dagster's gRPC server, then daemon and webserver. Stopped: a drain mark that sensors and
schedules obey, the runs (each flushes, and we wait until its process has ended), then webserver,
daemon and gRPC server. In between, each of these that ends by itself is started again.
Add here what concerns the processes together; one process's handling belongs to ``processes``, what
Dagster says of itself to ``console``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from pydantic import BaseModel, SecretStr

from lakehouse_pipeline.errors import EnvironmentFault, SettingsError
from lakehouse_pipeline.interrupts import HELD, Interrupts
from lakehouse_pipeline.machine import Process
from lakehouse_pipeline.settings import Settings

from .console import Console
from .layout import Layout
from .processes import Child, choose_port, end_session, listens, wait_until
from .restarts import Restarts

log = structlog.get_logger()

PROJECT = Path(__file__).resolve().parents[2]  # where dagster.yaml and workspace.yaml are
SERVERS = CODE, DAEMON, WEBSERVER = "gRPC server", "daemon", "webserver"
LOOPBACK = ("127.0.0.1", "localhost")
START_PATIENCE = 180.0  # seconds; two busy cores need up to 80
SIGN_OF_LIFE = 10.0  # seconds between lines that say it goes on
DRAIN_PATIENCE = 120.0  # seconds for every run to flush, commit and end


class Interrupted(Exception):
    """Somebody asked the stack to stop while it was starting."""


class Stack:
    """``with Stack(settings, interrupts) as stack: stack.watch()``.

    Raises:
        SettingsError, PortInUse, StateDirectoryError: before anything was started.
        EnvironmentFault: another stack works on this state, a server ended by itself or never
            became ready.
        Interrupted: a signal came before everything was ready.
    """

    def __init__(
        self,
        settings: Settings,
        interrupts: Interrupts,
        *,
        say: Callable[[str], None],
        feed: Sequence[str] | None = None,
    ) -> None:
        """Take note; nothing is started before the ``with``.

        Args:
            settings: of the deployment.
            interrupts: the owner's signals.
            say: shows a line to whoever started the stack.
            feed: the command of a feed server to run as well; workers are sent to it.
        """
        self.settings = settings.resolved()
        self.layout = Layout(self.settings.state_dir)
        self._interrupts = interrupts
        self._say = say
        self._feed = feed
        self._children: list[Child] = []
        self._predecessors: list[Process] = []  # of servers that were started again
        self._restarts = {name: Restarts() for name in SERVERS}
        self.drained = True  # whether every run ended by itself; rows of a killed one are spooled

    @property
    def console(self) -> Console:
        return Console(self.ui_url)

    @property
    def ui_url(self) -> str:
        return f"http://{self.settings.ui.host}:{self.settings.ui.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What every child must know for all to work on the same state."""
        settings = self.settings
        config = {"LAKEHOUSE_CONFIG": str(settings.config)} if settings.config.exists() else {}
        return {
            # glibc keeps a heap for each thread of Dagster's pools: 50 MB of a settled stack.
            "MALLOC_ARENA_MAX": "2",
            **os.environ,
            **config,
            "DAGSTER_HOME": str(self.layout.dagster_home),
            "LAKEHOUSE_STATE_DIR": str(settings.state_dir),
            **environment_of(settings),
            # Ours talk to each other; a proxy for the world must not come in between.
            "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy"), *LOOPBACK))),
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Self:
        if not self.settings.exchanges:
            raise SettingsError(
                f"{self.settings.config} names no exchange.",
                mend="Add one under 'exchanges:', such as BINANCE: {symbols: [BTCUSDT]}.",
            )
        self.layout.refuse_second_owner()
        self._choose_ports()
        self.layout.make()
        self._write_state()
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def start(self, name: str, command: Sequence[str]) -> Child:
        """Start another child, to be stopped before all that were started earlier."""
        log_file = self.layout.logs / f"{name.lower().replace(' ', '_')}.log"
        child = Child(name, command, log=log_file, env=self.environment)
        self._children.append(child)
        self._write_state()
        log.debug("process_started", name=name, pid=child.process.pid)
        return child

    def keep_alive(self) -> None:
        """Start each of Dagster's servers again that ended by itself; call it now and then.

        Streams record without them, and must not end because a page has used up the memory.

        Raises:
            EnvironmentFault: one has ended too often, or another child has ended.
        """
        now = time.monotonic()
        for place, child in enumerate(self._children):
            if child.exit_code is None:
                continue
            restarts = self._restarts.get(child.name)
            if restarts is None:
                raise child.obituary()
            if restarts.due is None:
                wait = restarts.ended(now)
                if wait is None:
                    raise child.obituary()
                log.error("server_ended", problem=str(child.obituary()), again_in=wait)
                self._say(f"{child.obituary()} It is started again in {wait:.0f} s.")
            elif now >= restarts.due:
                restarts.due = None
                # Runs it had launched go on in its session: they end with the stack.
                self._predecessors.append(child.process)
                self._children[place] = child.again(self.environment)
                self._write_state()

    def wait_until_well(
        self, what: str, ailments: Callable[[], Sequence[str]], *, patience: float = START_PATIENCE
    ) -> None:
        """Wait until *what* has no *ailments*, every child still lives and nobody interrupts.

        Raises:
            EnvironmentFault: it still has them, or a child has ended; it says all that is known.
            Interrupted: by a signal.
        """
        began = said = time.monotonic()
        while found := ailments():
            self.check()
            if self._interrupts.wait(0.2):
                raise Interrupted
            now = time.monotonic()
            if now > said + SIGN_OF_LIFE:
                said = now
                self._say(f"{what} is starting, since {now - began:.0f} s …")
            if now > began + patience:
                logs = (f"{child.name}: {child.last_line()}" for child in self._children)
                raise EnvironmentFault(
                    f"{what} was not ready within {patience:.0f} s: {'; '.join(found)}.",
                    mend=f"The logs in {self.layout.logs} end so: {' | '.join(logs)}",
                )

    def check(self) -> None:
        """Raise the obituary of a child that ended by itself."""
        for child in self._children:
            if child.exit_code is not None:
                raise child.obituary()

    def watch(self) -> None:
        """Return when interrupted; until then keep every child alive.

        Raises:
            EnvironmentFault: as ``keep_alive``.
        """
        while not self._interrupts.wait(0.5):
            self.keep_alive()

    def _choose_ports(self) -> None:
        ui, grpc = self.settings.ui, self.settings.grpc
        ui_port = choose_port(ui.host, ui.port, setting="LAKEHOUSE_UI__PORT")
        grpc_port = choose_port(grpc.host, grpc.port, setting="LAKEHOUSE_GRPC__PORT")
        self.settings = self.settings.model_copy(
            update={
                "ui": ui.model_copy(update={"port": ui_port}),
                "grpc": grpc.model_copy(update={"port": grpc_port}),
            }
        )

    def _start(self) -> None:
        self._say(f"Starting; the logs are in {self.layout.logs}")
        self.layout.drain_mark.unlink(missing_ok=True)
        shutil.copyfile(PROJECT / "dagster.yaml", self.layout.dagster_home / "dagster.yaml")
        self._prepare()
        if self._feed is not None:
            self._start_feed(self._feed)
        ui, grpc = self.settings.ui, self.settings.grpc
        workspace = ["-w", str(PROJECT / "workspace.yaml")]
        self.start(
            CODE,
            [*python("dagster", "api", "grpc", "-m", "lakehouse_pipeline.definitions"),
             "-h", grpc.host, "-p", str(grpc.port), "--location-name", "lakehouse"],
        )  # fmt: skip
        # It listens once the definitions are loaded; asked earlier, the daemon would log errors.
        self.wait_until_well(
            "Dagster's gRPC server",
            lambda: [] if listens(grpc.host, grpc.port) else [f"nothing listens on {grpc.port}"],
        )
        # Its INFO is two lines a sensor every five seconds; the ticks in the UI say the same.
        daemon = python("dagster._daemon", "run", *workspace, "--log-level", "warning")
        self.start(DAEMON, daemon)
        self.start(
            WEBSERVER,
            [*python("dagster_webserver", *workspace), "-h", ui.host, "-p", str(ui.port),
             *(["--read-only"] if ui.read_only else [])],
        )  # fmt: skip
        self.wait_until_well("Dagster", self.console.ailments)

    def _start_feed(self, command: Sequence[str]) -> None:
        feed = self.start("feed server", command)
        addresses: dict[str, str] = {}

        def missing() -> list[str]:
            lines = (line.split() for line in feed.output().splitlines())
            addresses.update((line[0], line[1]) for line in lines if len(line) == 2)
            return [f"no {name}" for name in ("LISTENING", "HTTP") if name not in addresses]

        self.wait_until_well("The feed server", missing)
        update = {"url": addresses["LISTENING"], "http_url": addresses["HTTP"]}
        self.settings = self.settings.model_copy(
            update={"feed": self.settings.feed.model_copy(update=update)}
        )

    def _prepare(self) -> None:
        """Make the tables, bring Dagster's store to this version, end what a crash left behind.

        All this before the servers, because several first starts at once on an empty store fail.
        """
        prepare = self.start("prepare", python("lakehouse_pipeline.defs.lifecycle", "prepare"))
        # The owner waits for weeks, and what reads the lake takes 100 MB: elsewhere, and done with.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            # It inherits that, so that a terminal's Ctrl-C reaches its owner only.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
            try:
                prepared = apart.submit(prepare_tables, self.settings)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            prepared.result()
        while prepare.exit_code is None:
            if self._interrupts.wait(0.1):
                raise Interrupted
        if prepare.exit_code != 0:
            raise prepare.obituary()
        self._children.remove(prepare)

    def _stop(self) -> None:
        self.layout.drain_mark.touch()
        try:
            if any(child.name == DAEMON for child in self._children):
                with suppress(OSError):  # whoever listened has gone; the streams must flush anyway
                    self._say("Stopping: streams flush what they hold …")
                self.drained = drain(self.layout, self.environment)
        finally:
            while self._children:
                child = self._children.pop()
                child.stop()
                log.debug("process_stopped", name=child.name, exit_code=child.exit_code)
            for leader in self._predecessors:
                end_session(leader)
        self.layout.drain_mark.unlink(missing_ok=True)
        self.layout.state_file.unlink(missing_ok=True)

    def _write_state(self) -> None:
        children = [child.process for child in self._children]
        self.layout.write_state(Process.of(os.getpid()), [*self._predecessors, *children])


def prepare_tables(settings: Settings) -> None:
    """Make the tables that are missing, and read what only a first hourly run would stumble over.

    Raises:
        LakehouseError: with the mend.
    """
    from lakehouse_pipeline.build.indicators import studies_of  # noqa: PLC0415  # not in the owner
    from lakehouse_pipeline.lake.lakehouse import Lakehouse  # noqa: PLC0415  # as above

    studies_of(settings.indicators)
    Lakehouse.open(settings).close()


def up(settings: Settings, *, say: Callable[[str], None] = print) -> int:
    """Run the deployment until interrupted; return the exit code."""
    with Interrupts() as interrupts:
        stack = Stack(settings, interrupts, say=say)
        try:
            with stack:
                say(f"Dagster UI  {stack.ui_url}")
                stack.watch()
        except Interrupted:
            say("Stopped before everything had started.")
    return 0 if stack.drained else 1


def drain(layout: Layout, environment: Mapping[str, str]) -> bool:
    """Cancel every run, wait until its process has flushed and ended; tell whether all did."""
    command = python("lakehouse_pipeline.defs.lifecycle", "drain", str(DRAIN_PATIENCE))
    child = Child("drain", command, log=layout.logs / "drain.log", env=environment)
    if not wait_until(lambda: child.exit_code is not None, patience=DRAIN_PATIENCE + 30):
        child.stop()
    if child.exit_code != 0:
        log.error("drain_failed", problem=str(child.obituary()))
    return child.exit_code == 0


def environment_of(settings: Settings) -> dict[str, str]:
    """Return every section as variables, so that a child reads the settings its parent has."""
    variables = {}
    for section, value in settings:
        if not isinstance(value, BaseModel):
            continue
        for name, plain in value.model_dump(mode="json").items():
            secret = getattr(value, name)
            text = secret.get_secret_value() if isinstance(secret, SecretStr) else plain
            variables[f"LAKEHOUSE_{section.upper()}__{name.upper()}"] = (
                "" if text is None else text if isinstance(text, str) else json.dumps(text)
            )
    return variables


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
