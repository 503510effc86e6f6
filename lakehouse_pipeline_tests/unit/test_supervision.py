"""Who is alive, and when the next worker may start."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil
import pytest

from lakehouse_pipeline.ingest.heartbeat import WorkerStatus, write_status
from lakehouse_pipeline.ingest.supervision import (
    BAN_WAIT,
    Failure,
    Keep,
    Start,
    Wait,
    bury_the_dead,
    decide,
    failures,
    is_alive,
    is_due,
    record_failure,
    workers,
)
from lakehouse_pipeline.machine import Process, uptime

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def status(**changes) -> WorkerStatus:
    made = WorkerStatus.begin("OKX", "w1", "r1")
    return msgspec.structs.replace(made, **{"started_at": NOW, "at": NOW, **changes})


def another_process(**changes) -> Process:
    return replace(Process.current(), **changes)


def failed(*seconds_ago: float, banned: bool = False) -> list[Failure]:
    return [
        Failure(at=NOW - timedelta(seconds=ago), reason="no luck", banned=banned)
        for ago in seconds_ago
    ]


def test_a_fresh_heartbeat_of_this_very_process_is_alive():
    assert is_alive(status(), NOW + timedelta(seconds=3))


def test_a_stale_heartbeat_is_not_alive():
    assert not is_alive(status(beat=uptime() - 60), NOW)


def test_another_process_with_the_same_number_is_not_alive():
    assert not is_alive(status(process=another_process(began=1.0)), NOW)


def test_a_worker_of_before_the_machine_was_started_anew_is_not_alive():
    assert not is_alive(status(process=another_process(boot="before")), NOW)
    assert not is_alive(status(beat=uptime() + 3_600), NOW)


@pytest.mark.parametrize("step", [timedelta(hours=3), timedelta(hours=-3)])
def test_a_step_of_the_clock_changes_nothing_about_who_lives(monkeypatch, step):
    living, dead = status(), status(process=another_process(began=1.0))
    told = psutil.Process.create_time
    monkeypatch.setattr(
        psutil.Process, "create_time", lambda process: told(process) + step.total_seconds()
    )

    assert is_alive(living, NOW + step)
    assert not is_alive(dead, NOW + step)


def test_a_process_that_is_gone_is_not_alive():
    assert not is_alive(status(process=another_process(pid=2**22 + 1)), NOW)


def test_a_worker_on_another_host_is_judged_by_the_age_of_its_heartbeat():
    elsewhere = status(host="elsewhere", process=another_process(pid=2**22 + 1, boot="its own"))

    assert is_alive(elsewhere, NOW + timedelta(seconds=3))
    assert not is_alive(elsewhere, NOW + timedelta(minutes=1))


def test_a_worker_that_said_goodbye_is_not_alive():
    assert not is_alive(status(ended="stopped"), NOW)


def test_the_newest_living_worker_is_kept():
    older, newer = status(), status(writer_id="w2")

    assert decide([newer, older], failed(1, 2, 3), NOW) == Keep(newer)


def test_the_newest_is_known_although_the_clock_was_set_back_meanwhile():
    older, newer = status(), status(writer_id="w2", started_at=NOW - timedelta(hours=1))

    assert decide([older, newer], [], NOW) == Keep(newer)


def test_failures_that_are_yet_to_happen_hold_nothing_back():
    assert decide([], failed(-3_600, -3_601), NOW) == Start()


def test_the_first_failure_is_replaced_at_once():
    assert decide([], failed(1), NOW) == Start()


def test_pauses_double_up_to_a_limit_and_old_failures_are_forgiven():
    def pause(*seconds_ago: float) -> timedelta:
        decision = decide([], failed(*seconds_ago), NOW)
        assert isinstance(decision, Wait)
        assert "no luck" in decision.reason
        return decision.until - NOW

    assert pause(0, 1) == timedelta(seconds=10)
    assert pause(0, 1, 2) == timedelta(seconds=20)
    assert pause(*range(20)) == timedelta(minutes=5)
    assert decide([], failed(30, 31), NOW) == Start()
    assert decide([], failed(1, 3_700, 3_800), NOW) == Start()


def test_a_ban_waits_for_a_person():
    decision = decide([], failed(3_600 * 3, banned=True), NOW)

    assert isinstance(decision, Wait)
    assert decision.until == NOW - timedelta(hours=3) + BAN_WAIT


def test_statuses_are_read_back_and_other_exchanges_and_torn_files_are_not(tmp_path: Path):
    mine = status()
    write_status(tmp_path, mine)
    write_status(tmp_path, status(exchange="BYBIT"))
    (tmp_path / "workers" / "OKX.torn.json").write_text("{")

    assert workers(tmp_path, "OKX") == [mine]


def test_a_worker_that_vanished_is_a_failure_and_is_buried_once(tmp_path: Path):
    write_status(tmp_path, status(process=another_process(pid=2**22 + 1)))
    write_status(tmp_path, status(writer_id="w2", ended="stopped"))
    write_status(tmp_path, status(writer_id="w3"))
    record_failure(tmp_path, "OKX", failed(5)[0])

    before = failures(tmp_path, "OKX", NOW)
    bury_the_dead(tmp_path, "OKX", NOW)
    bury_the_dead(tmp_path, "OKX", NOW)

    assert len(before) == 2
    assert failures(tmp_path, "OKX", NOW) == before
    assert [left.writer_id for left in workers(tmp_path, "OKX")] == ["w3"]


def test_a_worker_is_due_at_its_leases_end_or_when_its_code_is_old():
    assert not is_due(status())
    assert is_due(status(lease_expired=True))
    assert is_due(status(version="0.0.1"))
