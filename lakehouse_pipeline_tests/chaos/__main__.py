"""``make chaos``: every long crash programme, one after the other.

Arguments (``--seconds``, ``--seed``) go to each of them.
"""

from __future__ import annotations

import subprocess
import sys

PROGRAMMES = ("workers", "lake")

sys.exit(
    max(
        subprocess.run(
            [sys.executable, "-m", f"lakehouse_pipeline_tests.chaos.{name}", *sys.argv[1:]],
            check=False,
        ).returncode
        for name in PROGRAMMES
    )
)
