"""How often the feed is connected to, and after what pause."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from lakehouse_pipeline.errors import AuthError, FeedSilent, HandshakeRefused, LimitError
from lakehouse_pipeline.ingest.backoff import Backoff
from lakehouse_pipeline.ingest.cadence import ENOUGH, MINUTE, Cadence
from lakehouse_pipeline.ingest.limiter import ConnectLimiter
from lakehouse_pipeline.machine import boot_id

SECOND = 1_000_000


def limiter(folder: Path) -> ConnectLimiter:
    return ConnectLimiter(folder, timedelta(seconds=5))


def test_connects_of_all_processes_are_spaced(tmp_path: Path):
    path = tmp_path / "host.txt"

    delays = [limiter(tmp_path)._reserve(path, 100.0) for _ in range(3)]
    later = limiter(tmp_path)._reserve(path, 200.0)

    assert delays == [0.0, 5.0, 10.0]
    assert later == 0.0


def test_a_clock_set_back_keeps_nobody_from_connecting(tmp_path: Path):
    pacing = ConnectLimiter(tmp_path, timedelta(milliseconds=1))
    asyncio.run(pacing.wait("ws://host"))

    with time_machine.travel(datetime.now(UTC) - timedelta(minutes=5)):
        asyncio.run(asyncio.wait_for(pacing.wait("ws://host"), timeout=5))


@pytest.mark.parametrize(
    "content", ["", "12..5", "99.0", "another-boot 99.0", f"{boot_id()} 9999999999.0"]
)
def test_a_torn_reservation_or_one_of_another_boot_counts_for_nothing(tmp_path: Path, content: str):
    path = tmp_path / "host.txt"
    path.write_text(content)

    assert limiter(tmp_path)._reserve(path, 100.0) == 0.0


def backoff() -> Backoff:
    return Backoff(longest=timedelta(seconds=60), refused=timedelta(minutes=5))


def test_pauses_are_random_below_a_doubling_limit():
    attempt = backoff()

    for failures in range(1, 30):
        pause = attempt.after(FeedSilent("quiet"), lasted=timedelta(0))
        assert timedelta(0) <= pause <= min(timedelta(seconds=2**failures), timedelta(seconds=60))


def test_a_session_that_lasted_begins_again_with_a_short_pause():
    attempt = backoff()
    for _ in range(10):
        attempt.after(FeedSilent("quiet"), lasted=timedelta(0))

    assert attempt.after(FeedSilent("quiet"), lasted=timedelta(hours=1)) <= timedelta(seconds=1)


@pytest.mark.parametrize(
    "error", [HandshakeRefused(403), HandshakeRefused(429), LimitError("full"), AuthError("no")]
)
def test_a_feed_that_said_no_is_left_alone_for_long(error):
    assert backoff().after(error, lasted=timedelta(0)) >= timedelta(minutes=5)


def test_a_server_error_is_no_refusal():
    assert backoff().after(HandshakeRefused(502), lasted=timedelta(0)) <= timedelta(seconds=2)


def test_a_habit_is_not_assumed_before_it_is_learnt():
    cadence = Cadence()
    for _ in range(ENOUGH - 1):
        cadence.learn(SECOND)

    assert not cadence.exceeded(100 * MINUTE)


def test_a_busy_symbol_is_missed_after_a_minute_and_a_quiet_one_much_later():
    busy, quiet = Cadence(), Cadence()
    for _ in range(400):
        busy.learn(SECOND)
        quiet.learn(90 * SECOND)

    assert not busy.exceeded(MINUTE)
    assert busy.exceeded(MINUTE + SECOND)
    assert not quiet.exceeded(20 * MINUTE)
    assert quiet.exceeded(31 * MINUTE)


def test_bursts_with_long_rests_are_a_habit_too():
    cadence = Cadence()
    for _ in range(5):
        for _ in range(40):
            cadence.learn(SECOND)
        cadence.learn(10 * MINUTE)

    assert not cadence.exceeded(20 * MINUTE)
