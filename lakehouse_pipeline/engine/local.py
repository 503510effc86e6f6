"""The default engine: one partition after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Partition = TypeVar("Partition")
Result = TypeVar("Result")


def map_partitions(
    function: Callable[[Partition], Result], partitions: Iterable[Partition]
) -> Iterator[Result]:
    """Yield the result for each partition, as it is ready."""
    yield from map(function, partitions)
