"""What is wrong with a row: the flags it carries, and statements that find offenders.

A statement returns the rows that break it, with a column that says how; an empty frame is the
proof. Add statements about stored rows here; what a check does about them belongs to ``defs``.
"""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Bits of the ``flags`` column. Stored: never renumber."""

    FILLED = 1  # prices and volume are the vendor's own bar
    CARRIED = 2  # no update: the previous close repeated, dense view only
    PARTIAL = 4  # the symbol was not seen for all of the interval
    LATE = 8  # an update came after close plus lateness
    CLOCK_SUSPECT = 16  # received long before or after its trade
    DELAYED_FEED = 32  # the feed said it was delayed
    VOLUME_ESTIMATED = 64
    VOLUME_UNKNOWN = 128
    COUNTER_RESET = 256  # the counter started from zero
    COUNTER_FELL = 512  # the counter fell or a jump was taken back; that update booked nothing
    SPANS_GAP = 1024  # an update's delta spans a hole in coverage and was left to the gap
    CROSSED_QUOTE = 2048  # bid above ask
