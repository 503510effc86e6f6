"""Our indicators against TA-Lib over real bars, and what a gap does to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from lakehouse_pipeline.market import indicators, schemas
from lakehouse_pipeline.market.indicators import OPEN_TIME, STUDIES
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.stretches import as_one_stretch, with_stretches
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor

NO_GAPS = pl.DataFrame(schema=schemas.GAPS)
START = datetime(2024, 8, 9, tzinfo=UTC)


def minute_bars(closes: list[float], *, start: datetime = START) -> pl.DataFrame:
    rows = [
        {
            "exchange": "X",
            "symbol": "X:A",
            "open_time": start + n * MINUTE,
            "open": close,
            "high": close + 1,
            "low": close - 1,
            "close": close,
            "volume": 1.0 + n,
            "flags": 0,
        }
        for n, close in enumerate(closes)
    ]
    return pl.DataFrame(rows, schema_overrides={"open_time": schemas.UTC_TIME, "flags": pl.Int32})


def gaps_of(*spans: tuple[timedelta, timedelta], cause: str = "feed_gap") -> pl.DataFrame:
    """Return ledger rows of the symbol above, from and to counted from the first bar."""
    rows = [("X", "X:A", START + start, START + end, cause) for start, end in spans]
    columns = {name: schemas.GAPS[name] for name in ("exchange", "symbol", "start", "end", "cause")}
    return pl.DataFrame(rows, schema=columns, orient="row")


def official_bars(shared_data: Path) -> pl.DataFrame:
    source = pl.read_parquet(shared_data / "bars1m_BITSTAMP_BTCUSD_20200101.parquet")
    return source.select(
        (pl.col("t") * 1_000_000).cast(schemas.UTC_TIME).alias("open_time"),
        *("open", "high", "low", "close", "volume"),
    )


def bars_of_trades(path: Path, step: str) -> pl.DataFrame:
    trades = pl.read_parquet(path).sort("ts_us", maintain_order=True)
    price = pl.col("price")
    return (
        trades.with_columns(open_time=pl.col("ts_us").cast(schemas.UTC_TIME).dt.truncate(step))
        .group_by("open_time", maintain_order=True)
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=pl.col("size").sum(),
        )
    )


SOURCES = {
    "Bitstamp's minutes": official_bars,
    # Crosses midnight; seconds, because ten minutes would warm nothing.
    "Binance's seconds": lambda folder: bars_of_trades(
        folder / "trades_BINANCE_ETHUSDT_20240808-09.parquet", "1s"
    ),
    "Coinbase's seconds": lambda folder: bars_of_trades(
        folder / "trades_COINBASE_BTCUSD_20230905.parquet", "1s"
    ),
}


@pytest.fixture(scope="module", params=SOURCES)
def real_bars(request: pytest.FixtureRequest, shared_data: Path) -> pl.DataFrame:
    return (
        SOURCES[request.param](shared_data)
        .with_columns(exchange=pl.lit("X"), symbol=pl.lit("X:A"), flags=pl.lit(0, pl.Int32))
        .sort("open_time")
    )


def plots_of(bars: pl.DataFrame, study: indicators.Study) -> dict[str, np.ndarray]:
    wide = indicators.widen(with_stretches(bars, NO_GAPS), [study])
    return {plot: wide[plot].to_numpy() for plot in study.plots}


def reference(name: str, bars: pl.DataFrame) -> dict[str, np.ndarray]:
    high, low, close, volume = (bars[c].to_numpy() for c in ("high", "low", "close", "volume"))
    if name == "macd":
        return dict(zip(("macd", "signal", "histogram"), talib.MACD(close), strict=True))
    if name == "bollinger":
        bands = talib.BBANDS(close, 20, 2.0, 2.0)
        return dict(zip(("upper", "middle", "lower"), bands, strict=True))
    single = {
        "sma": lambda: talib.SMA(close, 20),
        "ema": lambda: talib.EMA(close, 20),
        "rsi": lambda: talib.RSI(close, 14),
        "atr": lambda: talib.ATR(high, low, close, 14),
        "obv": lambda: talib.OBV(close, volume),
    }
    return {name: single[name]()}


@pytest.mark.parametrize("name", ["sma", "ema", "rsi", "macd", "bollinger", "atr", "obv"])
def test_agrees_with_talib_over_real_bars_after_warm_up(name: str, real_bars: pl.DataFrame) -> None:
    study = STUDIES[name]()
    # TA-Lib seeds MACD's fast average later than its definition says, so the two agree once
    # either seed is forgotten.
    warm = study.memory if name == "macd" else study.warm_up

    ours = plots_of(real_bars, study)

    for plot, expected in reference(name, real_bars).items():
        assert np.isfinite(ours[plot][warm:]).all()
        np.testing.assert_allclose(ours[plot][warm:], expected[warm:], rtol=1e-9, atol=1e-9)


def test_vwap_is_the_money_by_the_volume_of_each_day(real_bars: pl.DataFrame) -> None:
    money: dict[object, float] = {}
    volume: dict[object, float] = {}
    expected = []
    for bar in real_bars.to_dicts():
        day = bar["open_time"].date()
        typical = (bar["high"] + bar["low"] + bar["close"]) / 3
        money[day] = money.get(day, 0.0) + typical * bar["volume"]
        volume[day] = volume.get(day, 0.0) + bar["volume"]
        expected.append(money[day] / volume[day] if volume[day] else np.nan)

    # Some of these days begin at noon; carried, the value speaks of what there is.
    ours = indicators.widen(as_one_stretch(real_bars, NO_GAPS), [indicators.vwap()])["vwap"]

    np.testing.assert_allclose(ours, expected, rtol=1e-9)


@pytest.mark.parametrize("name", sorted({*STUDIES} - {"vwap"}))
def test_is_null_until_warm_and_never_after(name: str, real_bars: pl.DataFrame) -> None:
    study = STUDIES[name]()
    wide = indicators.widen(with_stretches(real_bars, NO_GAPS), [study])

    first_values = [wide[plot].is_not_null().arg_max() for plot in study.plots]

    assert max(first_values) == study.warm_up - 1
    assert all(wide[plot][study.warm_up - 1 :].null_count() == 0 for plot in study.plots)


@pytest.mark.parametrize("name", ["sma", "ema", "rsi", "macd", "bollinger", "atr"])
def test_longer_warm_up_does_not_change_later_values(name: str, real_bars: pl.DataFrame) -> None:
    study = STUDIES[name]()
    whole = plots_of(real_bars, study)

    late = plots_of(real_bars[-(study.memory + 100) :], study)

    for plot, values in late.items():
        np.testing.assert_allclose(values[-100:], whole[plot][-100:], rtol=1e-12, atol=1e-12)


def test_a_gap_makes_a_study_start_again() -> None:
    closes = [100.0 + n % 7 for n in range(60)]
    bars = minute_bars(closes)
    gap = gaps_of((30 * MINUTE - timedelta(seconds=20), 30 * MINUTE))

    values = indicators.widen(with_stretches(bars, gap), [indicators.rsi(14)])["rsi"]

    assert values[29] is not None
    assert values[30:44].null_count() == 14
    assert values[44] is not None
    alone = indicators.widen(with_stretches(bars[30:], NO_GAPS), [indicators.rsi(14)])["rsi"]
    assert values[30:].to_list() == alone.to_list()


def test_a_gap_that_official_bars_fill_changes_nothing() -> None:
    gap = gaps_of((30 * MINUTE - timedelta(seconds=20), 33 * MINUTE))
    filled = pl.col("open_time").is_between(START + 29 * MINUTE, START + 32 * MINUTE)
    flags = pl.when(filled).then(int(Flag.FILLED)).otherwise(0).cast(pl.Int32)
    bars = minute_bars([100.0 + n % 7 for n in range(60)]).with_columns(flags=flags)

    one_hole = bars.filter(pl.col("open_time") != START + 31 * MINUTE)

    assert set(with_stretches(bars, gap)["stretch"]) == {0}
    stretches = with_stretches(one_hole, gap)["stretch"]
    assert stretches.n_unique() == 2
    assert stretches[30] != stretches[31]


def with_columns_of_bars(bars: pl.DataFrame) -> pl.DataFrame:
    """Return *bars* with every column that a roll-up asks for."""
    told = {"source": "stream", "state": "final", "volume_basis": "session"}
    others = [name for name in schemas.BARS if name not in bars.columns]
    whole = bars.with_columns(pl.lit(told.get(name)).alias(name) for name in others)
    return whole.select(schemas.BARS.names()).cast(schemas.BARS)


def test_one_filled_minute_does_not_hide_that_the_others_of_its_bar_are_missing() -> None:
    flags = pl.when(OPEN_TIME == START + 182 * MINUTE).then(int(Flag.FILLED)).otherwise(0)
    bars = with_columns_of_bars(minute_bars([1.0] * 480).with_columns(flags=flags))
    seen = bars.filter(~OPEN_TIME.is_between(START + 190 * MINUTE, START + 229 * MINUTE))
    second = timedelta(seconds=1)
    gaps = gaps_of(
        (182 * MINUTE + 10 * second, 182 * MINUTE + 30 * second), (190 * MINUTE, 230 * MINUTE)
    )

    hours = with_stretches(seen, gaps, MINUTE, 60 * MINUTE)

    assert hours["stretch"].n_unique() == 2
    assert hours["stretch"][3] != hours["stretch"][4]
    assert with_stretches(seen, gaps)["stretch"].n_unique() == 2


def test_seconds_start_again_at_the_second_in_which_a_gap_began() -> None:
    second = timedelta(seconds=1)
    bars = minute_bars([1.0] * 200).with_columns(
        open_time=START + pl.int_range(200) * pl.lit(second)
    )
    gap = gaps_of((50 * second, 130 * second))
    seen = bars.filter(~OPEN_TIME.is_between(START + 51 * second, START + 129 * second))

    stretches = with_stretches(seen, gap, second)["stretch"].rle().struct.unnest()

    # The bar of the 50th second opens as the gap begins.
    assert stretches["len"].to_list() == [50, 1, 70]


def test_what_is_filled_stays_filled_in_longer_bars() -> None:
    flags = pl.when(OPEN_TIME.is_between(START + 180 * MINUTE, START + 183 * MINUTE)).then(1)
    bars = minute_bars([1.0] * 480).with_columns(flags=flags.otherwise(0))
    gaps = gaps_of((180 * MINUTE + timedelta(seconds=10), 184 * MINUTE))

    fives = with_stretches(with_columns_of_bars(bars), gaps, MINUTE, 5 * MINUTE)

    assert fives["stretch"].to_list() == [0] * 96


def test_a_pause_of_the_subscription_makes_a_study_start_again() -> None:
    bars = minute_bars([1.0, 2.0, 3.0])

    paused = with_stretches(bars, gaps_of((MINUTE, 2 * MINUTE), cause="unsubscribed"))

    assert paused["stretch"].to_list() == [0, 1, 1]


def test_a_market_that_stood_still_was_seen() -> None:
    bars = minute_bars([1.0, 2.0, 3.0])

    halted = with_stretches(bars, gaps_of((MINUTE, 2 * MINUTE), cause="venue_halt"))

    assert set(halted["stretch"]) == {0}


def test_values_say_whether_they_are_warm_and_settled() -> None:
    bars = minute_bars([100.0 + n % 7 for n in range(60)])
    study = indicators.ema(3)

    values = indicators.compute(with_stretches(bars, NO_GAPS), [study])

    assert values["flags"][:2].to_list() == [int(Flag.WARMING)] * 2
    assert values["flags"][2 : study.memory - 1].unique().to_list() == [int(Flag.SETTLING)]
    assert values["flags"][study.memory - 1 :].unique().to_list() == [0]


def test_values_can_be_carried_across_a_gap() -> None:
    bars = minute_bars([100.0 + n % 7 for n in range(60)])
    gap = gaps_of((30 * MINUTE, 40 * MINUTE))

    carried = indicators.widen(as_one_stretch(bars, gap), [indicators.rsi(14)])["rsi"]

    unbroken = indicators.widen(with_stretches(bars, NO_GAPS), [indicators.rsi(14)])["rsi"]
    assert carried.to_list() == unbroken.to_list()


def test_the_day_before_does_not_change_one_digit_of_vwap() -> None:
    bars = minute_bars([100.0 + n % 7 for n in range(3000)], start=START - 1500 * MINUTE)
    today = bars.filter(pl.col("open_time") >= START)

    whole = indicators.widen(with_stretches(bars, NO_GAPS), [indicators.vwap()])["vwap"]

    assert whole[1500:].null_count() == 0
    alone = indicators.widen(with_stretches(today, NO_GAPS), [indicators.vwap()])["vwap"]
    assert whole[1500:].to_list() == alone.to_list()


@pytest.mark.parametrize("name", ["vwap", "obv"])
def test_after_an_unknown_volume_nothing_is_pretended(name: str) -> None:
    bars = minute_bars([1.0, 2.0, 3.0, 4.0, 5.0], start=START - 3 * MINUTE).with_columns(
        volume=pl.when(pl.col("close") != 2).then("volume")
    )

    values = indicators.compute(as_one_stretch(bars, NO_GAPS), [STUDIES[name]()])

    missing = values["value"].is_null().to_list()
    # A new day's VWAP knows all of its volume again; OBV counts anew from the next bar on.
    assert missing == [False, True, name == "vwap", False, False]
    assert name == "vwap" or values["value"].to_list() == [1.0, None, 3.0, 7.0, 12.0]
    unknown = values.filter(pl.col("value").is_null())["flags"]
    assert set(unknown) == {int(Flag.VOLUME_UNKNOWN)}


@pytest.mark.parametrize("name", ["vwap", "obv"])
def test_a_longer_bar_with_a_minute_of_unknown_volume_has_an_unknown_volume(name: str) -> None:
    unknown = OPEN_TIME == START + 7 * MINUTE
    bars = with_columns_of_bars(minute_bars([1.0 + n for n in range(20)])).with_columns(
        volume=pl.when(~unknown).then("volume"),
        flags=pl.when(unknown).then(int(Flag.VOLUME_UNKNOWN)).otherwise("flags").cast(pl.Int32),
    )

    fives = with_stretches(bars, NO_GAPS, MINUTE, 5 * MINUTE)
    values = indicators.compute(fives, [STUDIES[name]()])

    assert fives["volume"].null_count() == 0
    missing = values["value"].is_null().to_list()
    assert missing == [False, True, name == "vwap", name == "vwap"]
    assert values["flags"][1] & int(Flag.VOLUME_UNKNOWN)


def test_rsi_ages_only_while_the_price_moves() -> None:
    moving = [100.0 + n % 7 for n in range(40)]
    bars = minute_bars([*moving, *[103.0] * 600, *[100.0 + n % 5 for n in range(600)]])
    study = indicators.rsi(14)

    values = indicators.compute(with_stretches(bars, NO_GAPS), [study])
    late = indicators.compute(with_stretches(bars[25:], NO_GAPS), [study])

    assert abs(values["value"][600] - late["value"][575]) > 0.1
    settled = late.filter(pl.col("flags") == 0)
    assert settled["open_time"].to_list() == bars["open_time"][640:].to_list()
    both = settled.join(values, on="open_time")
    np.testing.assert_allclose(both["value"], both["value_right"], rtol=1e-12)


@pytest.mark.parametrize(("ask", "settles"), [(["rsi"], 481), (["rsi", "obv"], 481), (["obv"], 0)])
def test_wide_bars_say_where_a_value_beside_them_is_not_settled(
    ask: list[str], settles: int
) -> None:
    bars = minute_bars([100.0 + n % 7 for n in range(600)])
    studies = [STUDIES[name]() for name in ask]

    flags = indicators.widen(with_stretches(bars, NO_GAPS), studies)["flags"]

    assert flags[settles:].to_list() == [0] * (600 - settles)
    if settles:
        assert flags[:14].to_list() == [int(Flag.WARMING)] * 14
        assert flags[14:settles].to_list() == [int(Flag.SETTLING)] * (settles - 14)


def test_vwap_speaks_when_its_whole_day_was_seen_and_obv_always_shows_its_start() -> None:
    bars = minute_bars([1.0, 2.0, 3.0, 4.0], start=START - 2 * MINUTE)

    values = indicators.compute(
        with_stretches(bars, NO_GAPS), [indicators.vwap(), indicators.obv()]
    )

    vwap, warming = values.filter(name="vwap"), int(Flag.WARMING)
    assert vwap["flags"].to_list() == [warming, warming, 0, 0]
    assert vwap["value"].is_null().to_list() == [True, True, False, False]
    assert values.filter(name="obv")["flags"].to_list() == [int(Flag.SETTLING)] * 4


def test_a_day_has_a_vwap_if_it_was_recorded_from_midnight_on() -> None:
    bars = minute_bars([1.0, 2.0, 3.0])

    whole = indicators.widen(with_stretches(bars, NO_GAPS), [indicators.vwap()])["vwap"]
    late = indicators.widen(with_stretches(bars[1:], NO_GAPS), [indicators.vwap()])["vwap"]

    assert (whole.null_count(), late.null_count()) == (0, 2)


@pytest.mark.parametrize("minutes", [1, 5, 60])
def test_vwap_is_null_from_the_bar_in_which_a_gap_began_to_the_end_of_the_day(minutes: int) -> None:
    bars = minute_bars([100.0 + n % 7 for n in range(2 * 1440)])
    hole = TimeWindow(START + 190 * MINUTE, START + 230 * MINUTE)
    seen = bars.filter(~OPEN_TIME.is_between(hole.start, hole.end, closed="left"))
    step, gap = minutes * MINUTE, gaps_of((190 * MINUTE - timedelta(seconds=9), 230 * MINUTE))

    def vwap(stretch) -> pl.DataFrame:
        rolled = stretch(with_columns_of_bars(seen), gap, MINUTE, step)
        return indicators.widen(rolled, [indicators.vwap()])

    known, carried = vwap(with_stretches), vwap(as_one_stretch)["vwap"]
    is_null = known["vwap"].is_null()
    missing = known.filter(is_null)["open_time"]

    assert missing.min() == floor(hole.start - MINUTE, step)
    assert missing.max() == START + DAY - step
    assert known.filter(~is_null)["vwap"].to_list() == carried.filter(~is_null).to_list()
    assert carried.null_count() == 0


def test_official_bars_that_fill_a_gap_give_the_day_its_vwap_back() -> None:
    bars = minute_bars([1.0, 2.0, 3.0]).with_columns(flags=pl.Series([0, 1, 0], dtype=pl.Int32))
    filled = with_stretches(bars, gaps_of((MINUTE, 2 * MINUTE)))

    assert indicators.widen(filled, [indicators.vwap()])["vwap"].null_count() == 0


def test_vwap_restarts_at_midnight() -> None:
    bars = minute_bars([10.0, 20.0, 30.0, 40.0], start=START - 2 * MINUTE)

    values = indicators.widen(with_stretches(bars, NO_GAPS), [indicators.vwap()])["vwap"]

    assert values[2] == pytest.approx(30.0)
    assert values[3] == pytest.approx((30 * 3 + 40 * 4) / 7)


def test_long_form_has_one_row_a_bar_and_plot() -> None:
    bars = with_stretches(minute_bars([1.0, 2.0, 3.0]), NO_GAPS)

    frame = indicators.compute(bars, [indicators.rsi(2), indicators.macd(1, 2, 1)])

    assert frame.schema == schemas.INDICATORS
    assert frame.height == 3 * 4
    assert set(frame["parameters"]) == {"length=2", "fast=1,slow=2,signal=1"}
