"""One owner for every process of a deployment: the order of start, of stop, and the signals.

Started: Dagster's gRPC server, then daemon and webserver. Stopped: a drain mark that sensors and
schedules obey, the runs (each flushes, and we wait until its process has ended), then webserver,
daemon and gRPC server. Add here what concerns the processes together; one process's handling
belongs to ``processes``, what Dagster says of itself to ``console``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from pydantic import SecretStr

from lakehouse_pipeline.errors import EnvironmentFault, StateDirectoryError, UsageError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.settings import Settings

from .console import Console
from .processes import Child, Interrupts, Process, choose_port, end_session, listens, wait_until

log = structlog.get_logger()

PROJECT = Path(__file__).resolve().parents[2]  # where dagster.yaml and workspace.yaml are
DRAIN_MARK = "draining"
STATE_FILE = "stack.json"
START_PATIENCE = 180.0  # seconds; two busy cores need up to 80
DRAIN_PATIENCE = 120.0  # seconds for every run to flush, commit and end


class Interrupted(Exception):
    """Somebody asked the stack to stop while it was starting."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a deployment keeps what its processes share, all below the state folder."""

    state: Path

    @property
    def dagster_home(self) -> Path:
        return self.state / "dagster"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def drain_mark(self) -> Path:
        return self.state / DRAIN_MARK

    @property
    def state_file(self) -> Path:
        return self.state / STATE_FILE


class Stack:
    """``with Stack(settings, interrupts) as stack: stack.watch()``.

    Raises:
        PortInUse, StateDirectoryError, UsageError: before anything was started.
        EnvironmentFault: a server ended by itself, or never became ready.
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
            **os.environ,
            **config,
            "DAGSTER_HOME": str(self.layout.dagster_home),
            "LAKEHOUSE_STATE_DIR": str(settings.state_dir),
            "LAKEHOUSE_FEED__URL": settings.feed.url,
            "LAKEHOUSE_FEED__HTTP_URL": settings.feed.http_url,
            "LAKEHOUSE_FEED__TOKEN": plain(settings.feed.token),
            "LAKEHOUSE_FEED__SESSIONID": plain(settings.feed.sessionid),
            "LAKEHOUSE_FEED__SESSIONID_SIGN": plain(settings.feed.sessionid_sign),
            "LAKEHOUSE_FEED__CONNECT_INTERVAL": str(settings.feed.connect_interval.total_seconds()),
            "LAKEHOUSE_LAKE__CATALOG_TYPE": settings.lake.catalog_type,
            "LAKEHOUSE_LAKE__CATALOG_URI": settings.lake.catalog_uri,
            "LAKEHOUSE_LAKE__WAREHOUSE": settings.lake.warehouse,
            "LAKEHOUSE_GRPC__HOST": settings.grpc.host,
            "LAKEHOUSE_GRPC__PORT": str(settings.grpc.port),
            "PYTHONUNBUFFERED": "1",
        }

    def __enter__(self) -> Self:
        make_state_directory(self.layout)
        refuse_second_owner(self.layout)
        self._choose_ports()
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
        """Start another child, to be stopped after all that were started later."""
        child = Child(name, command, log=self.layout.logs / f"{name}.log", env=self.environment)
        self._children.append(child)
        self._write_state()
        log.info("process_started", name=name, pid=child.process.pid)
        return child

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until *condition* is true, every child still lives and nobody interrupts."""
        deadline = time.monotonic() + START_PATIENCE
        while not condition():
            self.check()
            if self._interrupts.wait(0.2):
                raise Interrupted
            if time.monotonic() > deadline:
                raise EnvironmentFault(
                    f"{what} was not ready within {START_PATIENCE:.0f} s.",
                    mend=f"See the logs in {self.layout.logs}.",
                )

    def check(self) -> None:
        """Raise the obituary of a child that ended by itself."""
        for child in self._children:
            if child.exit_code is not None:
                raise child.obituary()

    def watch(self) -> None:
        """Return when interrupted; raise when a child ends by itself."""
        while not self._interrupts.wait(0.5):
            self.check()

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
        self.layout.drain_mark.unlink(missing_ok=True)
        shutil.copyfile(PROJECT / "dagster.yaml", self.layout.dagster_home / "dagster.yaml")
        self._prepare()
        if self._feed is not None:
            self._start_feed(self._feed)
        ui, grpc = self.settings.ui, self.settings.grpc
        workspace = ["-w", str(PROJECT / "workspace.yaml")]
        self.start(
            "grpc",
            [*python("dagster", "api", "grpc", "-m", "lakehouse_pipeline.definitions"),
             "-h", grpc.host, "-p", str(grpc.port), "--location-name", "lakehouse"],
        )  # fmt: skip
        # It listens once the definitions are loaded; asked earlier, the daemon would log errors.
        self.wait_for(lambda: listens(grpc.host, grpc.port), "Dagster's gRPC server")
        self.start("daemon", python("dagster._daemon", "run", *workspace))
        self.start(
            "webserver",
            [*python("dagster_webserver", *workspace), "-h", ui.host, "-p", str(ui.port)],
        )
        self.wait_for(lambda: not self.console.ailments(), "Dagster")

    def _start_feed(self, command: Sequence[str]) -> None:
        feed = self.start("feed server", command)
        addresses: dict[str, str] = {}

        def has_spoken() -> bool:
            lines = (line.split() for line in feed.output().splitlines())
            addresses.update((line[0], line[1]) for line in lines if len(line) == 2)
            return {"LISTENING", "HTTP"} <= addresses.keys()

        self.wait_for(has_spoken, "The feed server")
        update = {"url": addresses["LISTENING"], "http_url": addresses["HTTP"]}
        self.settings = self.settings.model_copy(
            update={"feed": self.settings.feed.model_copy(update=update)}
        )

    def _prepare(self) -> None:
        """Make the tables, bring Dagster's store to this version, end what a crash left behind.

        All this before the servers, because several first starts at once on an empty store fail.
        """
        prepare = self.start("prepare", python("lakehouse_pipeline.defs.lifecycle", "prepare"))
        self._children.remove(prepare)
        Lakehouse.open(self.settings).close()
        while prepare.exit_code is None:
            if self._interrupts.wait(0.1):
                prepare.stop()
                raise Interrupted
        if prepare.exit_code != 0:
            raise prepare.obituary()

    def _stop(self) -> None:
        self.layout.drain_mark.touch()
        if any(child.name == "daemon" for child in self._children):
            drain(self.layout, self.environment, say=self._say)
        while self._children:
            child = self._children.pop()
            child.stop()
            log.info("process_stopped", name=child.name, exit_code=child.exit_code)
        self.layout.state_file.unlink(missing_ok=True)

    def _write_state(self) -> None:
        state = {
            "owner": asdict(Process.of(os.getpid())),
            "ui": self.ui_url,
            "children": [asdict(child.process) for child in self._children],
        }
        replacement = self.layout.state_file.with_suffix(".new")
        replacement.write_text(json.dumps(state), encoding="utf-8")
        replacement.replace(self.layout.state_file)


def up(settings: Settings, *, say: Callable[[str], None] = print) -> int:
    """Run the deployment until interrupted; return the exit code."""
    with Interrupts() as interrupts:
        try:
            with Stack(settings, interrupts, say=say) as stack:
                say(f"Dagster UI  {stack.ui_url}")
                stack.watch()
        except Interrupted:
            say("Stopped before everything had started.")
    return 0


def drain(layout: Layout, environment: Mapping[str, str], *, say: Callable[[str], None]) -> None:
    """Cancel every run and wait until its process has flushed and ended."""
    say("Stopping: streams flush what they hold …")
    command = python("lakehouse_pipeline.defs.lifecycle", "drain", str(DRAIN_PATIENCE))
    child = Child("drain", command, log=layout.logs / "drain.log", env=environment)
    if not wait_until(lambda: child.exit_code is not None, patience=DRAIN_PATIENCE + 30):
        child.stop()
    if child.exit_code != 0:
        log.error("drain_failed", problem=str(child.obituary()))


def down(settings: Settings, *, say: Callable[[str], None] = print) -> int:
    """Stop the stack that works on this state folder, wherever it was started.

    Raises:
        UsageError: if there is none.
        EnvironmentFault: if its owner does not end.
    """
    layout = Layout(settings.resolved().state_dir)
    owner, children = read_state(layout)
    if owner is not None and owner.alive:
        say(f"Stopping process {owner.pid} …")
        owner.signal(signal.SIGTERM)
        if not wait_until(lambda: not owner.alive, patience=DRAIN_PATIENCE + 90):
            raise EnvironmentFault(
                f"Process {owner.pid} still runs.", mend=f"See the logs in {layout.logs}."
            )
    elif any(child.alive for child in children):
        say("Its owner was killed; stopping the processes it left behind …")
        layout.drain_mark.touch()
        drain(layout, {**os.environ, "DAGSTER_HOME": str(layout.dagster_home)}, say=say)
        for child in reversed(children):
            child.signal(signal.SIGTERM)
            wait_until(lambda child=child: not child.alive, patience=15)  # type: ignore[misc]  # mypy cannot infer a lambda's default
            end_session(child)
        layout.state_file.unlink(missing_ok=True)
    else:
        layout.state_file.unlink(missing_ok=True)
        raise UsageError(f"Nothing runs on {layout.state}.")
    return 0


def make_state_directory(layout: Layout) -> None:
    """Create the folders, and prove that they can be written.

    Raises:
        StateDirectoryError: naming the folder.
    """
    try:
        for folder in (layout.dagster_home, layout.logs):
            folder.mkdir(parents=True, exist_ok=True)
        probe = layout.state / ".writable"
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
    except OSError as error:
        raise StateDirectoryError(
            f"State folder {layout.state} cannot be written: {error.strerror}.",
            mend="Mend it or set LAKEHOUSE_STATE_DIR to another one.",
        ) from error


def refuse_second_owner(layout: Layout) -> None:
    """Raise UsageError if another stack works on this state folder."""
    owner, children = read_state(layout)
    if owner is not None and owner.alive:
        raise UsageError(
            f"Process {owner.pid} already runs on {layout.state}.",
            mend="Use it, or stop it with `make down`.",
        )
    if any(child.alive for child in children):
        raise UsageError(
            f"Servers of a killed stack still run on {layout.state}.",
            mend="Stop them with `make down`.",
        )


def read_state(layout: Layout) -> tuple[Process | None, list[Process]]:
    """Return the owner and the children that the last stack on this folder wrote down."""
    try:
        state = json.loads(layout.state_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, []
    return Process(**state["owner"]), [Process(**child) for child in state["children"]]


def plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
