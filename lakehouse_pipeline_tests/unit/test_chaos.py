"""The crash programmes' command and the verdict of their laws."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from types import ModuleType

import pytest

from lakehouse_pipeline_tests.chaos import __main__ as every
from lakehouse_pipeline_tests.chaos import lake, workers
from lakehouse_pipeline_tests.chaos.laws import Law, all_met

CHAOS = "lakehouse_pipeline_tests.chaos"


@pytest.mark.parametrize(
    ("examined", "broken", "verdict"), [(5, 0, "met"), (5, 1, "not met"), (0, 0, "not judged")]
)
def test_a_law_holds_only_of_what_was_examined(examined: int, broken: int, verdict: str) -> None:
    law = Law("rows lost", examined, broken)

    assert law.verdict == verdict
    assert all_met([law]) is (verdict == "met")


@pytest.mark.parametrize("main", [every.main, workers.main, lake.main])
def test_a_mistyped_option_is_refused(
    main: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--kils", "3"])

    assert "--kils" in capsys.readouterr().err


def test_each_programme_is_given_its_own_options_alone() -> None:
    given = argparse.Namespace(kills=9, seconds=None, seed=7)

    of_workers, of_lake = (command[2:] for command in every.commands(given))

    assert of_workers == [f"{CHAOS}.workers", "--kills=9", "--seed=7"]
    assert of_lake == [f"{CHAOS}.lake", "--seed=7"]


@pytest.mark.parametrize("programme", [workers, lake])
def test_a_programme_knows_the_options_it_is_given(
    programme: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        programme.main(["--help"])

    told, own = capsys.readouterr().out, every.PROGRAMMES[programme.__name__.rpartition(".")[2]]
    assert [option for option in own if f"--{option} " not in told] == []
