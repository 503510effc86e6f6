"""The code server of a container: what the stack does around its own, with the others elsewhere.

``python -m lakehouse_pipeline.stack.code_server -h 0.0.0.0 -p 4266`` passes its arguments on to
``dagster api grpc``. Runs, streams included, are processes beside it. A container that is told to
stop signals its first process alone and kills the rest as that one ends: so runs are drained here.
One that starts can have no run yet, so those that Dagster believes in are ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from lakehouse_pipeline.interrupts import Interrupts
from lakehouse_pipeline.settings import load_settings

from .layout import Layout
from .stack import drain, python

SERVER = python("dagster", "api", "grpc", "-m", "lakehouse_pipeline.definitions")


def serve(layout: Layout, arguments: Sequence[str], interrupts: Interrupts) -> int:
    """Serve until interrupted or until the server ends; return the exit code."""
    layout.make()
    layout.drain_mark.unlink(missing_ok=True)
    subprocess.run(python("lakehouse_pipeline.defs.lifecycle", "prepare"), check=True)  # noqa: S603  # our own
    server = subprocess.Popen([*SERVER, *arguments], start_new_session=True)  # noqa: S603  # as above
    while server.poll() is None and not interrupts.wait(0.5):
        pass
    layout.drain_mark.touch()
    is_drained = drain(layout, os.environ)
    server.terminate()
    server.wait()
    layout.drain_mark.unlink(missing_ok=True)
    return 0 if is_drained and interrupts.wait(0) else 1


def main(arguments: Sequence[str]) -> int:
    with Interrupts() as interrupts:
        return serve(Layout(load_settings().resolved().state_dir), arguments, interrupts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
