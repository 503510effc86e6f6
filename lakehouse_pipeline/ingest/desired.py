"""Which symbols to record, as ``exchanges.yaml`` says now.

A running worker follows the file. A file that cannot be used changes nothing: it is reported, and
the last good list stays.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import structlog
from pydantic import ValidationError

from lakehouse_pipeline.errors import SettingsError
from lakehouse_pipeline.settings import ExchangeSettings, Settings, read_yaml

log = structlog.get_logger()

LOOK_EVERY = timedelta(seconds=5)


class DesiredSymbols:
    """The full names to record for one exchange; asking looks at the file now and then."""

    def __init__(self, settings: Settings, exchange: str) -> None:
        self._path = settings.config
        self._exchange = exchange
        self._symbols = frozenset(settings.symbols(exchange))
        self._stamp = _stamp(self._path)
        self._looked = time.monotonic()

    def now(self) -> frozenset[str]:
        """Return the names wanted now."""
        if time.monotonic() - self._looked >= LOOK_EVERY.total_seconds():
            self._looked = time.monotonic()
            if (stamp := _stamp(self._path)) != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._symbols

    def _read_again(self) -> None:
        try:
            exchanges = read_yaml(self._path).get("exchanges") or {}
            wanted = ExchangeSettings.model_validate(exchanges[self._exchange])
        except (SettingsError, ValidationError, KeyError) as error:
            log.warning("symbols_not_reloaded", exchange=self._exchange, problem=str(error))
            return
        self._symbols = frozenset(f"{self._exchange}:{ticker}" for ticker in wanted.symbols)
        log.info("symbols_reloaded", exchange=self._exchange, symbols=len(self._symbols))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
