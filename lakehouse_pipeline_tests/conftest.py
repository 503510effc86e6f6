"""What every test may use: a deadline instead of a sleep, the shared data, quiet hypothesis."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Slow or busy machines scale every deadline with this instead of editing tests.
PATIENCE = float(os.environ.get("LAKEHOUSE_TEST_TIMEOUT_FACTOR", "1"))

settings.register_profile(
    "default",
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("default"), max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Take back what a command run in this process has set: its standard error is gone by then."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real trades beside the checkout; see its README."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the shared data folder {folder} is not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """The folder of reference material beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip(f"the shared reference folder {folder} is not on this machine")
    return folder


@pytest.fixture
def eventually() -> Callable[..., Awaitable[object]]:
    """``await eventually(predicate, timeout=10)``: its first true value, or a failure."""

    async def wait(predicate: Callable[[], object], *, timeout: float = 10.0) -> object:  # noqa: ASYNC109  # the caller's deadline is the point
        deadline = time.monotonic() + timeout * PATIENCE
        while not (value := predicate()):
            assert time.monotonic() < deadline, f"not within {timeout * PATIENCE} s: {predicate}"
            await asyncio.sleep(0.02)
        return value

    return wait


@pytest.fixture
def eventually_sync() -> Callable[..., object]:
    """The same for tests without a loop."""

    def wait(predicate: Callable[[], object], *, timeout: float = 10.0) -> object:
        deadline = time.monotonic() + timeout * PATIENCE
        while not (value := predicate()):
            assert time.monotonic() < deadline, f"not within {timeout * PATIENCE} s: {predicate}"
            time.sleep(0.05)
        return value

    return wait


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own LAKEHOUSE_ settings must not reach a test."""
    for name in list(os.environ):
        if name.startswith("LAKEHOUSE_") and name != "LAKEHOUSE_TEST_TIMEOUT_FACTOR":
            monkeypatch.delenv(name)
