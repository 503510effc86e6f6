"""A browser as a user has it, and one running deployment to look at.

Every page is watched: what it writes to its console as an error, or throws, fails the test that
opened it. Pictures go to ``LAKEHOUSE_TEST_ARTEFACTS``, ``.artefacts`` beside the code by default.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import polars as pl
import pytest

from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline_tests.conftest import PATIENCE
from lakehouse_pipeline_tests.e2e.conftest import EXCHANGES, Deployment, eventually

if TYPE_CHECKING:  # installed for make test-all only, and this file is read by make test too
    from playwright.sync_api import Browser, ConsoleMessage, Page

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-sync"),
)
WAITING = ("Loading", "fetching statuses", "Fetching")  # what the UI says while it is not ready
SIZE = {"width": 1600, "height": 940}
# Read before a fixture clears all LAKEHOUSE_ variables.
ARTEFACTS = Path(
    os.environ.get("LAKEHOUSE_TEST_ARTEFACTS", Path(__file__).resolve().parents[2] / ".artefacts")
)


def cannot(reason: str) -> NoReturn:
    """Skip, saying why; where CI promised a browser, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        cannot("playwright is not installed; make test-all installs it")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        cannot("no chromium on this machine; Debian's package is called chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Visit:
    """One page, what it complained of, and pictures of it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(60_000 * PATIENCE)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location.get('url')})")

    def open(self, address: str) -> None:
        self.page.goto(address, wait_until="domcontentloaded")

    def text(self) -> str:
        return self.page.locator("body").inner_text()

    def settled(self, *words: str, timeout: float = 90.0) -> str:
        """Return what the page says once it shows all *words* and loads nothing any more."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            said = self.text()
            missing = [word for word in words if word not in said]
            if not missing and not any(word in said for word in WAITING):
                return said
            if time.monotonic() > deadline:
                file = self.picture("unsettled")
                pytest.fail(f"the page lacks {missing}; see {file}. It says:\n{said}")
            # A sleep would hold back the page's events.
            self.page.wait_for_timeout(200)

    def picture(self, name: str) -> Path:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        file = ARTEFACTS / f"{name}.png"
        self.page.screenshot(path=file)
        return file


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    page = chromium.new_page(viewport=SIZE)
    visit = Visit(page)
    yield visit
    page.close()
    assert not visit.complaints


@pytest.fixture(scope="session")
def deployment(
    chromium: Browser,  # noqa: ARG001  # without one nothing is started
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Streams that run, today's first bars, and yesterday: fetched, built and checked."""
    deployment = Deployment(tmp_path_factory.mktemp("demo"))
    try:
        deployment.start()
        eventually(deployment.all_durable, timeout=90)
        today = datetime.now(UTC).date()
        bounds = ("start", EXCHANGES[0]), ("end", EXCHANGES[-1])
        _run(
            deployment,
            "repair",
            {f"dagster/asset_partition_range_{end}": f"{today}|{name}" for end, name in bounds},
        )
        _run(deployment, "finalize_yesterday", {"dagster/partition": f"{yesterday()}|BINANCE"})
        eventually(lambda: _has_built_today(deployment), timeout=180)
        yield deployment
    finally:
        deployment.kill_everything()


def _has_built_today(deployment: Deployment) -> bool:
    """Tell whether a minute that was wholly seen is built, and whoever built it has checked it."""
    whole = (pl.col("source") == "stream") & (pl.col("flags") & Flag.PARTIAL.value == 0)
    with deployment.lake() as lake:
        bars = lake.scan("market.bars_1m", exchange="BINANCE").filter(whole).collect()
    runs = deployment.console.runs_since(deployment.started)
    builders = {run.status for run in runs if run.job in ("build_today", "report_gaps")}
    return not bars.is_empty() and builders <= {"SUCCESS"}


def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


def _run(deployment: Deployment, job: str, tags: dict[str, str]) -> None:
    run_id = deployment.console.launch(job, tags=tags)
    assert deployment.ended(run_id) == "SUCCESS"
