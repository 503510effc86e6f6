"""``make chaos``: every long crash programme, one after the other, and one exit code.

Each programme is given those of the options that it has.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence

PROGRAMMES = {"workers": ("kills", "seed"), "lake": ("seconds", "seed")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the programmes; return 1 if any did not end well."""
    parser = argparse.ArgumentParser(
        prog="python -m lakehouse_pipeline_tests.chaos", description=__doc__
    )
    parser.add_argument("--kills", type=int, help="of workers, in all")
    parser.add_argument("--seconds", type=float, help="of processes at the lake")
    parser.add_argument("--seed", type=int, help="of who is killed and when")
    options = parser.parse_args(arguments)
    ended = [subprocess.run(list(command), check=False).returncode for command in commands(options)]
    return 1 if any(ended) else 0  # one that was killed ended with less than 0


def commands(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the command of each programme with the options that were given and are its own."""
    for name, own in PROGRAMMES.items():
        given = [(option, getattr(options, option)) for option in own]
        yield [
            *(sys.executable, "-m", f"lakehouse_pipeline_tests.chaos.{name}"),
            *(f"--{option}={value}" for option, value in given if value is not None),
        ]


if __name__ == "__main__":
    sys.exit(main())
