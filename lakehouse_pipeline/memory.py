"""Memory that a build frees goes back to the system, so that days do not add up."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD = -1  # glibc's M_TRIM_THRESHOLD
FREE_AT_MOST = 1 << 20  # bytes on top of a heap


def give_back_what_is_freed() -> None:
    """Have the C library keep little of what is freed; one without ``mallopt`` is left alone.

    glibc raises the size from which it keeps memory with each larger block that is freed. After a
    day of bars it kept 250 MB of arrays, which the next day's came on top of.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, FREE_AT_MOST)
