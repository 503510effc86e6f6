"""The same map over Ray tasks, for days that are many and cores that are more than one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from lakehouse_pipeline.errors import SettingsError

Partition = TypeVar("Partition")
Result = TypeVar("Result")


def map_partitions(
    function: Callable[[Partition], Result], partitions: Iterable[Partition]
) -> Iterator[Result]:
    """Yield the result for each partition, in order, each computed in a process of Ray's.

    *function* is sent there, so it opens what it needs itself. A Ray that was not started by the
    caller is started on this machine alone, and stopped at the end.

    Raises:
        SettingsError: if the package is missing.
        LakehouseError: what a task raised, as the task raised it; tasks not begun are canceled.
    """
    try:
        import ray  # noqa: PLC0415  # optional, and slow to import
        from ray.exceptions import RayTaskError  # noqa: PLC0415  # as above
    except ImportError as error:
        raise SettingsError(
            "The engine ray needs the package ray.",
            mend="Install the extra: pip install 'lakehouse-pipeline[ray]', or use local.",
        ) from error
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    task: Any = ray.remote(max_retries=0)(do_task)
    waiting = [task.remote(function, partition) for partition in partitions]
    try:
        while waiting:
            yield ray.get(waiting[0])
            del waiting[0]
    except RayTaskError as error:
        raise error.cause from error
    finally:
        for left in waiting:
            ray.cancel(left)
        if started_here:
            ray.shutdown()


def do_task(function: Callable[[Partition], Result], partition: Partition) -> Result:
    """Do one task. Ray takes only plain functions, and ours may be a partial one."""
    return function(partition)
