"""Day by exchange, the one partitioning of every table, and the tags that ask for a rectangle.

Symbols are run config, not partitions: at a few hundred of them the keys would be too many for the
UI. Add here what turns partitions into days and back; what is done with a day belongs to ``build``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol, Self

import dagster as dg

# Days before the first recording are only asked for by replays; a fixed start keeps keys stable.
FIRST_DAY = "2020-01-01"

# Dagster's own tags: a run of the rectangle between two partition keys.
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


class Partitioned(Protocol):
    """The context of an asset or of a check."""

    @property
    def partition_keys(self) -> Sequence[str]: ...


@dataclass(frozen=True, order=True, slots=True)
class Part:
    """One partition: what is built of one exchange on one UTC day."""

    exchange: str
    day: date

    @classmethod
    def of(cls, key: str) -> Self:
        """Return the partition that Dagster calls *key*, such as ``2026-01-05|OKX``."""
        day, _, exchange = key.partition("|")
        return cls(exchange, date.fromisoformat(day))

    @property
    def key(self) -> dg.MultiPartitionKey:
        return dg.MultiPartitionKey({"date": self.day.isoformat(), "exchange": self.exchange})


def by_date_and_exchange(exchanges: Sequence[str]) -> dg.MultiPartitionsDefinition:
    """Return the partitioning; the day that is running exists, tomorrow does not."""
    return dg.MultiPartitionsDefinition(
        {
            "date": dg.DailyPartitionsDefinition(start_date=FIRST_DAY, end_offset=1),
            "exchange": dg.StaticPartitionsDefinition(list(exchanges)),
        }
    )


def parts_of(context: Partitioned) -> Iterator[Part]:
    """Yield the partitions of this run, exchange by exchange and day by day."""
    yield from sorted(map(Part.of, context.partition_keys))


def range_tags(first: date, last: date, exchanges: Sequence[str]) -> dict[str, str]:
    """Return the run tags that make one run of every exchange from *first* to *last*, inclusive."""
    return {
        RANGE_START: Part(exchanges[0], first).key,
        RANGE_END: Part(exchanges[-1], last).key,
    }
