"""``lakehouse bench`` with a benchmark that measures nothing: what it says of limits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse_pipeline.cli import app, bench

MEASURED = """
from lakehouse_pipeline_tests.benchmarks.lines import Line

def run(folder, *, scale, say):
    return [Line("told", 7.0), Line("within", 1.0, 1.0), Line("beyond", scale, 1.0)]
"""


@pytest.fixture(autouse=True)
def benchmark_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "made_up.py").write_text(MEASURED)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "PACKAGE", "measured")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(("scale", "beyond", "code"), [("0.5", True, 0), ("1.5", False, 1)])
def test_only_a_figure_with_a_limit_is_met_or_not(scale: str, beyond: bool, code: int) -> None:  # noqa: FBT001  # a case
    arguments = ["bench", "made_up", "--scale", scale, "--format", "json"]
    result = CliRunner().invoke(app, arguments)

    met = {row["what"]: row["met"] for row in json.loads(result.stdout)}
    assert met == {"told": None, "within": True, "beyond": beyond}
    assert result.exit_code == code


def test_a_table_says_nothing_beside_a_figure_without_a_limit() -> None:
    result = CliRunner().invoke(app, ["bench", "made_up", "--scale", "0.5"])

    told, within = (
        next(line for line in result.stdout.splitlines() if f" {what} " in line)
        for what in ("told", "within")
    )
    assert "True" not in told
    assert within.rstrip().endswith("True")
