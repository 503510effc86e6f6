"""Logging set-up and every metric, declared once.

Count where the thing happens; declare here. Labels are bounded: exchange yes, symbol no.
"""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import Counter, Gauge, Histogram

FRAMES = Counter("lakehouse_frames_total", "Websocket messages received.", ["exchange"])
QUOTES = Counter("lakehouse_quotes_total", "Quote updates spooled.", ["exchange", "kind"])
REJECTS = Counter("lakehouse_rejects_total", "Frames and rows refused.", ["exchange", "reason"])
STUDIES_LACKING = Gauge(
    "lakehouse_studies_lacking",
    "Charts and studies the feed refused or did not answer, and has not given since.",
    ["exchange"],
)
SESSIONS = Counter("lakehouse_sessions_total", "Sessions ended, by how.", ["exchange", "reason"])
COMMITS = Counter("lakehouse_commits_total", "Iceberg commits.", ["table", "operation"])
COMMIT_SECONDS = Histogram("lakehouse_commit_seconds", "Time of one Iceberg commit.", ["table"])
SPOOL_BYTES = Gauge("lakehouse_spool_bytes", "Size of the spool on disk.", ["exchange"])
SPOOL_ROWS = Gauge("lakehouse_spool_rows", "Rows spooled and not yet committed.", ["exchange"])


def configure_logging(level: int = logging.INFO) -> None:
    """Send structured logs to standard error: lines on a terminal, JSON elsewhere."""
    # A commit that lost a race and retries is the design, not a warning.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
