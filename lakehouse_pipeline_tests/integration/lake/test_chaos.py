"""The short, seeded form of the crash programme; ``make chaos`` runs it for ten minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse_pipeline_tests.chaos.lake import CAST, READERS, direct
from lakehouse_pipeline_tests.chaos.laws import all_met


@pytest.mark.full
@pytest.mark.timeout(300)  # ten processes share what cores there are
def test_nothing_is_lost_or_doubled_while_everything_happens_and_is_killed(tmp_path: Path) -> None:
    outcome = direct(tmp_path / "lake", seconds=150, seed=5, enough=4)

    assert outcome.failures == []
    assert min(outcome.turns[name] for name in (*CAST, *READERS)) >= 4
    assert outcome.kills.total() >= 4
    assert all_met(outcome.laws)
