"""The pages say what the code says, and lead where they point."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse_pipeline_tests import reference

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["tables.md", "indicators.md", "settings.md", "cli.md"])
def test_the_reference_is_current(name):
    written = (reference.FOLDER / name).read_text(encoding="utf-8")

    assert written == reference.pages()[name], "run `make docs` and commit what it writes"


def test_every_setting_is_described():
    page = reference.settings()
    rows = [line for line in page.splitlines() if line.startswith("| `LAKEHOUSE_")]

    assert rows
    assert not [row for row in rows if row.endswith("|  |")]


@pytest.mark.full
def test_the_pages_build_without_a_warning_and_load_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is in the extra docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "tutorial.html", "how-to.html", "tables.html"} <= {
        page.name for page in pages
    }
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', html)
        assert loaded
        assert not [url for url in loaded if url.startswith(("http", "//"))]
