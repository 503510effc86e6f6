"""Random changes and maintenance against a dictionary: the rows read are the rows written."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lakehouse_pipeline.lake import Lakehouse, Slice
from lakehouse_pipeline.lake.cleaning import NO_GUARD, apply_cleaning, plan_cleaning
from lakehouse_pipeline.lake.maintenance import compact, expire, seal
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.windows import DAY, HOUR, TimeWindow
from lakehouse_pipeline.settings import Settings

START = datetime(2026, 1, 31, 20, tzinfo=UTC)
TABLE = "market.bars_1m"
HOURS = 8  # midnight is in the middle
STEP = HOUR / 2

exchanges = st.sampled_from(["BINANCE", "OKX"])
tickers = st.sampled_from(["A", "B"])
steps = st.integers(0, 2 * HOURS - 1)
Key = tuple[str, int]


def frame(bars: dict[Key, float]) -> pl.DataFrame:
    rows = [
        {
            "exchange": symbol.partition(":")[0],
            "symbol": symbol,
            "open_time": START + step * STEP,
            "close": close,
        }
        for (symbol, step), close in bars.items()
    ]
    if not rows:
        return pl.DataFrame(schema=schemas.MINUTE_BARS)
    given = pl.DataFrame(rows, schema_overrides=schemas.MINUTE_BARS)
    return given.select(
        pl.col(name) if name in given.columns else pl.lit(None, kind).alias(name)
        for name, kind in schemas.MINUTE_BARS.items()
    )


class LakeMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.lake = Lakehouse.open(Settings(state_dir=Path(self.folder.name)))
        self.model: dict[Key, float] = {}
        self.close = 0.0
        self.progress: int | None = None

    def teardown(self) -> None:
        self.lake.close()
        self.folder.cleanup()

    def fresh(self, symbols: list[str], first: int, last: int) -> dict[Key, float]:
        """Make bars with closes never used before, for the steps not taken."""
        made: dict[Key, float] = {}
        for symbol in symbols:
            for step in range(first, last):
                self.close += 1.0
                made[symbol, step] = self.close
        return made

    @rule(exchange=exchanges, ticker=tickers, first=steps, length=st.integers(1, 4))
    def append(self, exchange: str, ticker: str, first: int, length: int) -> None:
        made = self.fresh([f"{exchange}:{ticker}"], first, first + length)
        made = {key: close for key, close in made.items() if key not in self.model}
        self.progress = first if made else self.progress
        self.lake.append(TABLE, frame(made), progress={"first": first} if made else {})
        self.model |= made

    @rule(
        exchange=exchanges,
        only=st.none() | tickers,
        first=steps,
        length=st.integers(1, 12),
        kept=st.integers(0, 12),
    )
    def overwrite(
        self, exchange: str, only: str | None, first: int, length: int, kept: int
    ) -> None:
        window = TimeWindow(START + first * STEP, START + (first + length) * STEP)
        symbols = [f"{exchange}:{ticker}" for ticker in ([only] if only else ["A", "B"])]
        made = self.fresh(symbols, first, first + min(kept, length))
        slice_ = Slice(exchange, window, tuple(symbols) if only else None)
        self.lake.overwrite(TABLE, frame(made), slice=slice_)
        self._replace(symbols, range(first, first + length), made)

    @rule(exchange=exchanges, day=st.integers(0, 1))
    def overwrite_a_day(self, exchange: str, day: int) -> None:
        window = TimeWindow.of_day((START + day * DAY).date())
        symbols = [f"{exchange}:A", f"{exchange}:B"]
        taken = [s for s in range(2 * HOURS + 4) if window.start <= START + s * STEP < window.end]
        made = self.fresh(symbols, taken[0], taken[-1] + 1)
        self.lake.overwrite(TABLE, frame(made), slice=Slice(exchange, window))
        self._replace(symbols, range(taken[0], taken[-1] + 1), made)

    def _replace(self, symbols: list[str], span: range, made: dict[Key, float]) -> None:
        self.model = {
            (symbol, step): close
            for (symbol, step), close in self.model.items()
            if symbol not in symbols or step not in span
        } | made

    @rule(hours=st.integers(0, HOURS))
    def seal(self, hours: int) -> None:
        seal(self.lake, TABLE, before=START + hours * HOUR)

    @rule(days=st.integers(0, 2))
    def compact(self, days: int) -> None:
        compact(self.lake, TABLE, before=START + days * DAY)

    @rule(keep=st.integers(1, 4))
    def expire_and_clean(self, keep: int) -> None:
        expire(self.lake, TABLE, keep=keep)
        never = datetime(2100, 1, 1, tzinfo=UTC)
        apply_cleaning(self.lake, plan_cleaning(self.lake, TABLE, now=never, guard=NO_GUARD))

    @invariant()
    def reads_agree(self) -> None:
        rows = self.lake.scan(TABLE).select("symbol", "open_time", "close").collect()
        found = {
            (symbol, round((time - START) / STEP)): close for symbol, time, close in rows.rows()
        }
        assert found == self.model
        assert rows.height == len(self.model)

    @invariant()
    def files_agree_with_the_summary(self) -> None:
        snapshot = self.lake.load(TABLE).current_snapshot()
        if snapshot is not None and snapshot.summary is not None:
            files = self.lake.files(TABLE)
            assert snapshot.summary["total-records"] == str(files["rows"].sum())
            assert snapshot.summary["total-data-files"] == str(files.height)

    @invariant()
    def progress_is_kept(self) -> None:
        assert self.lake.progress(TABLE, "first") == self.progress


TestLakeMachine = LakeMachine.TestCase
TestLakeMachine.settings = settings(max_examples=8, stateful_step_count=15)
