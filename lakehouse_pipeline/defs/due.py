"""Which finished days are behind, looked for in a process of its own.

The code server lives for weeks, and with it whatever it has imported: what reads the lake would
cost it 100 MB for a look every ten minutes. Run with an instant and exchanges, this module prints
what ``look`` finds; ``look_apart`` runs that and reads it. No Dagster here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from lakehouse_pipeline.errors import EnvironmentFault

if TYPE_CHECKING:
    from lakehouse_pipeline.build.freshness import Due
    from lakehouse_pipeline.lake.lakehouse import Lakehouse

DAYS_A_RUN = 7
# A day that has just ended is left to the night's run.
LEFT_TO_FINALIZE = timedelta(hours=1)
ONE_DAY = timedelta(days=1)
PATIENCE = 45.0  # seconds for the look; the code server gives a sensor up after 60


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighboring days that are due; *sequence* is of the newest commit they have not read."""

    first: date
    last: date
    sequence: int
    reason: str


def look(lake: Lakehouse, exchanges: Sequence[str], *, now: datetime) -> dict[str, list[Stretch]]:
    """Return the stretches of each exchange that is behind, oldest first."""
    from lakehouse_pipeline.build.bars import current_watermark  # noqa: PLC0415  # polars and pyiceberg
    from lakehouse_pipeline.build.freshness import closed_days  # noqa: PLC0415

    found = {}
    for exchange in exchanges:
        seen = current_watermark(lake, exchange)
        if seen is None:
            continue
        due = closed_days(lake, exchange, watermark=min(seen, now - LEFT_TO_FINALIZE))
        if due:
            found[exchange] = list(stretches(due))
    return found


def look_apart(
    exchanges: Sequence[str], *, now: datetime, patience: float = PATIENCE
) -> dict[str, list[Stretch]]:
    """Do ``look`` on the lake of this environment, elsewhere, in at most *patience* seconds.

    Raises:
        EnvironmentFault: with what the other process said last, or that it took too long.
    """
    command = [sys.executable, "-m", __name__, now.isoformat(), *exchanges]
    try:
        done = subprocess.run(  # noqa: S603  # our own command
            command, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired as slow:
        raise EnvironmentFault(
            f"Days that fell behind were not found within {patience:g} s.",
            mend="Ask `lakehouse doctor`; `lakehouse build` builds days by hand.",
        ) from slow
    if done.returncode != 0:
        said = done.stderr.strip().rpartition("\n")[2]
        raise EnvironmentFault(
            f"Days that fell behind cannot be looked for: {said}", mend="Ask `lakehouse doctor`."
        )
    return msgspec.json.decode(done.stdout, type=dict[str, list[Stretch]])


def stretches(due: Iterable[Due]) -> Iterator[Stretch]:
    """Yield neighboring days together, at most ``DAYS_A_RUN``, in the order given: oldest first."""
    group: list[Due] = []
    for day in due:
        if group and (day.day - group[-1].day != ONE_DAY or len(group) == DAYS_A_RUN):
            yield _stretch(group)
            group = []
        group.append(day)
    if group:
        yield _stretch(group)


def _stretch(group: Sequence[Due]) -> Stretch:
    newest = max(day.sequence for day in group)
    return Stretch(group[0].day, group[-1].day, newest, f"{group[0].day}: {group[0].reason}")


def main(now: str, *exchanges: str) -> None:
    from lakehouse_pipeline.lake.lakehouse import Lakehouse  # noqa: PLC0415  # as above
    from lakehouse_pipeline.settings import load_settings  # noqa: PLC0415

    with Lakehouse.open(load_settings()) as lake:
        found = look(lake, exchanges, now=datetime.fromisoformat(now))
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
