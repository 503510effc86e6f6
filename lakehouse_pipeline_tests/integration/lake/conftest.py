"""A real lake in a folder of its own, rows to put into it, and a way to lose a race on purpose."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from pyiceberg.table import Table

from lakehouse_pipeline.lake import Lakehouse
from lakehouse_pipeline.lake.catalog import open_catalog
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import MINUTE
from lakehouse_pipeline.settings import LakeSettings, Settings

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)
SYMBOLS = ("BINANCE:BTCUSDT", "BINANCE:ETHUSDT")
STORED = Path(__file__).parent / "lake_of_version_1.zip"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", config=tmp_path / "absent.yaml")


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lakehouse]:
    with Lakehouse.open(settings) as lake:
        yield lake


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lake as version 1 of the schema wrote it, not opened yet."""
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    lake = LakeSettings(catalog_uri="sqlite:///state/catalog.db", warehouse="state/warehouse")
    return Settings(state_dir=tmp_path / "state", config=tmp_path / "none.yaml", lake=lake)


@pytest.fixture
def bars() -> Callable[..., pl.DataFrame]:
    """``bars(minutes=3, close=1.0)``: one bar a minute from *start*, for each symbol."""

    def make(
        start: datetime = TEN,
        *,
        minutes: int = 1,
        close: float = 1.0,
        symbols: Sequence[str] = SYMBOLS,
    ) -> pl.DataFrame:
        rows = [
            {
                "exchange": symbol.partition(":")[0],
                "symbol": symbol,
                "open_time": start + minute * MINUTE,
                "close": close,
                "flags": minute,
            }
            for symbol in symbols
            for minute in range(minutes)
        ]
        return _fill(rows, schemas.MINUTE_BARS)

    return make


@pytest.fixture
def quotes() -> Callable[..., pl.DataFrame]:
    """``quotes(first, count)``: one quote a second from *start*, numbered from *first*."""

    def make(
        start: datetime = TEN, *, first: int = 0, count: int = 4, symbols: Sequence[str] = SYMBOLS
    ) -> pl.DataFrame:
        rows = [
            {
                "exchange": symbols[number % len(symbols)].partition(":")[0],
                "symbol": symbols[number % len(symbols)],
                "event_time": start + MINUTE / 60 * number,
                "received_at": start + MINUTE / 60 * (number + 1),
                "kind": "price",
                "last_price": float(number),
                "writer_id": "w",
                "sequence": number,
            }
            for number in range(first, first + count)
        ]
        return _fill(rows, schemas.QUOTES)

    return make


def _fill(rows: list[dict[str, object]], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema_overrides=schema).select(
        pl.col(name).cast(kind) if rows and name in rows[0] else pl.lit(None, kind).alias(name)
        for name, kind in schema.items()
    )


class RacingLake(Lakehouse):
    """A lake that is overtaken: *action* runs right after it loaded a table for the nth time."""

    def __init__(self, settings: Settings, action: Callable[[], object], *, at: int) -> None:
        super().__init__(open_catalog(settings))
        self._action, self._loads_left = action, at

    def load(self, table: str) -> Table:
        loaded = super().load(table)
        self._loads_left -= 1
        if self._loads_left == 0:
            self._action()
        return loaded


@pytest.fixture
def racing(settings: Settings, lake: Lakehouse) -> Iterator[Callable[..., RacingLake]]:  # noqa: ARG001  # the tables are there
    """``racing(action)``: a lake whose next change is overtaken by *action*."""
    opened: list[RacingLake] = []

    def make(action: Callable[[], object], *, at: int = 1) -> RacingLake:
        opened.append(RacingLake(settings, action, at=at))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
