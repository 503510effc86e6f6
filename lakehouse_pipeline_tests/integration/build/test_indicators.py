"""Stored indicators and those computed on read are the same, whoever builds which part of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse_pipeline.api import Reader
from lakehouse_pipeline.build import views
from lakehouse_pipeline.build.gaps import read_gaps, read_unseen
from lakehouse_pipeline.build.indicators import (
    build_indicators,
    split_names,
    studies_named,
    studies_of,
    tick_indicators,
)
from lakehouse_pipeline.errors import SettingsError, UsageError
from lakehouse_pipeline.lake.lakehouse import Lakehouse
from lakehouse_pipeline.lake.slices import Slice
from lakehouse_pipeline.market import schemas
from lakehouse_pipeline.market.indicators import STUDIES
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow
from lakehouse_pipeline.settings import load_settings

BTC, THIN = "BINANCE:BTCUSDT", "BINANCE:THINUSDT"  # THIN trades in every third minute or so
SECOND_DAY = datetime(2026, 3, 3, tzinfo=UTC)
BEGIN, END = SECOND_DAY - 20 * HOUR, SECOND_DAY + 14 * HOUR
OUTAGE = TimeWindow(SECOND_DAY - 30 * MINUTE, SECOND_DAY - 10 * MINUTE)
ALL = studies_of({name: {} for name in STUDIES})
SETTLING = int(Flag.SETTLING)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(load_settings(state_dir=tmp_path)) as opened:
        yield opened


def minutes(symbol: str, seed: int, share: float) -> pl.DataFrame:
    """Return a walk's minute bars, in that *share* of all minutes but those of the outage."""
    random, close, rows = Random(seed), 10_000, []
    for n in range((END - BEGIN) // MINUTE):
        opens = BEGIN + n * MINUTE
        if OUTAGE.start <= opens < OUTAGE.end or random.random() > share:
            continue
        close += random.randrange(-50, 51)
        high, low = close + random.randrange(20), close - random.randrange(20)
        volume = random.randrange(1, 9_999) / 1000
        rows.append((opens, close / 100, high / 100, low / 100, close / 100, volume))
    names = ("open_time", "open", "high", "low", "close", "volume")
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names), orient="row")
    known = {"exchange": "BINANCE", "symbol": symbol, "flags": 0, "source": "stream"}
    others = [
        pl.lit(known.get(name)).alias(name)
        for name in schemas.MINUTE_BARS.names()
        if name not in names
    ]
    columns = schemas.MINUTE_BARS.names()
    return frame.with_columns(others).select(columns).cast(dict(schemas.MINUTE_BARS))


BARS = pl.concat([minutes(BTC, 1, 1.0), minutes(THIN, 2, 0.3)])
GAPS = pl.DataFrame(
    [
        ("g", "BINANCE", symbol, OUTAGE.start, OUTAGE.end, "feed_gap", "", None, None, None)
        for symbol in (BTC, THIN)
    ],
    schema=schemas.GAPS,
    orient="row",
)


def land(lake: Lakehouse, start: datetime, end: datetime) -> None:
    inside = pl.col("open_time").is_between(start, end, closed="left")
    lake.append("market.bars_1m", BARS.filter(inside))
    if start <= OUTAGE.end < end:
        lake.append("market.gaps", GAPS)


def content(lake: Lakehouse) -> pl.DataFrame:
    keys = ["symbol", "open_time", "name", "plot", "source"]
    return lake.scan("market.indicators_1m").sort(keys).collect()


def digest(lake: Lakehouse) -> list[int]:
    return sorted(content(lake).hash_rows().to_list())


def test_ticks_backfills_and_parts_give_the_same_rows_over_midnight_and_gaps(
    lake: Lakehouse, tmp_path: Path
):
    land(lake, BEGIN, SECOND_DAY - HOUR)
    tick_indicators(lake, "BINANCE", ALL, watermark=SECOND_DAY - HOUR)
    for hour in range(14):
        at = SECOND_DAY + hour * HOUR + 7 * MINUTE
        land(lake, SECOND_DAY - HOUR if not hour else at - HOUR, at)
        tick_indicators(lake, "BINANCE", ALL, watermark=at)
    ticked, watermark = digest(lake), SECOND_DAY + 13 * HOUR + 7 * MINUTE

    with Lakehouse.open(load_settings(state_dir=tmp_path / "other")) as other:
        land(other, BEGIN, watermark)
        for day in (SECOND_DAY, SECOND_DAY - DAY):
            build_indicators(other, "BINANCE", day.date(), ALL, watermark=watermark)
        assert digest(other) == ticked
        (later, *_) = studies = studies_of({"sma": {}, "rsi": {}})
        build_indicators(other, "BINANCE", SECOND_DAY.date(), studies, watermark=watermark)
        build_indicators(
            other, "BINANCE", SECOND_DAY.date(), ALL, watermark=watermark, symbols=[BTC]
        )
        build_indicators(
            other, "BINANCE", SECOND_DAY.date(), ALL, watermark=watermark, symbols=[THIN]
        )
        assert later.name == "sma"
        assert digest(other) == ticked


def test_what_is_read_is_what_is_stored_whatever_the_window(lake: Lakehouse):
    land(lake, BEGIN, END)
    for day in (SECOND_DAY - DAY, SECOND_DAY):
        build_indicators(lake, "BINANCE", day.date(), ALL, watermark=END)
    stored = content(lake).filter(pl.col("flags") & SETTLING == 0).drop_nulls("value")
    assert stored["name"].n_unique() == len(STUDIES) - 1  # OBV shows for ever where it began

    for symbol in (BTC, THIN):
        mine = stored.filter(symbol=symbol)
        for hours in (0.1, 1, 6):
            window = TimeWindow(END - hours * HOUR, END)
            wide = views.read_with_studies(lake, symbol, ALL, step=MINUTE, window=window)
            for name, plot in mine.select("name", "plot").unique().iter_rows():
                both = wide.join(mine.filter(name=name, plot=plot), on="open_time")
                assert both.height > 0
                apart = (both[plot] - both["value"]).abs() / both["value"].abs().max()
                assert apart.max() < 1e-12, (symbol, hours, plot)


@pytest.mark.parametrize("name", sorted(STUDIES))
@pytest.mark.parametrize("step", [MINUTE, 5 * MINUTE, HOUR])
def test_the_window_asked_for_does_not_change_a_value(lake: Lakehouse, name: str, step):
    land(lake, BEGIN, END)
    studies = [STUDIES[name]()]

    whole = views.read_with_studies(lake, THIN, studies, step=step)
    for hours in (1, 2, 13):
        window = TimeWindow(END - hours * HOUR, END)
        part = views.read_with_studies(lake, THIN, studies, step=step, window=window)
        expected = whole.filter(pl.col("open_time") >= window.start)
        columns = studies[0].columns
        assert_frame_equal(
            part.select(columns), expected.select(columns), rel_tol=1e-12, abs_tol=1e-12
        )


@pytest.mark.parametrize("symbol", [BTC, THIN])
def test_where_vwap_is_not_known_no_reader_has_one(lake: Lakehouse, symbol: str):
    afternoon = TimeWindow(SECOND_DAY + 12 * HOUR, SECOND_DAY + 13 * HOUR)
    row = ("g", "BINANCE", symbol, afternoon.start, afternoon.end, "feed_gap", "", *[None] * 3)
    land(lake, BEGIN, END)
    lake.append("market.gaps", pl.DataFrame([row], schema=schemas.GAPS, orient="row"))
    vwap = studies_of({"vwap": {}})
    for day in (SECOND_DAY - DAY, SECOND_DAY):
        build_indicators(lake, "BINANCE", day.date(), vwap, watermark=END)
    stored = content(lake).filter(symbol=symbol)
    known = stored.drop_nulls("value")["open_time"]

    assert known.min() < SECOND_DAY + 20 * MINUTE  # the first day was not seen from its start on
    assert known.max() < afternoon.start
    for hours in (1, 5, 40):
        window = TimeWindow(END - hours * HOUR, END)
        read = views.read_with_studies(lake, symbol, vwap, step=MINUTE, window=window)
        expected = stored.filter(pl.col("open_time") >= window.start)["value"]
        assert read["vwap"].to_list() == expected.to_list()


def test_obv_goes_on_over_midnight_in_what_is_stored(lake: Lakehouse):
    land(lake, BEGIN, END)
    (obv,) = studies = studies_of({"obv": {}})
    for day in (SECOND_DAY - DAY, SECOND_DAY):
        build_indicators(lake, "BINANCE", day.date(), studies, watermark=END)

    stored = content(lake).filter(symbol=BTC)
    whole = views.read_with_studies(lake, BTC, [obv], step=MINUTE)

    assert stored["value"].to_list() == whole["obv"].to_list()


def test_after_a_pause_of_the_subscription_every_reader_starts_again(lake: Lakehouse):
    pause = TimeWindow(SECOND_DAY + 2 * HOUR, SECOND_DAY + 3 * HOUR)
    marks = [("subscribed", BEGIN), ("unsubscribed", pause.start), ("subscribed", pause.end)]
    coverage = [
        ("BINANCE", "s1", kind, BTC, at, at, None, None, "w", n)
        for n, (kind, at) in enumerate(marks)
    ]
    inside = pl.col("open_time").is_between(pause.start, pause.end, closed="left")
    lake.append("market.bars_1m", BARS.filter(symbol=BTC).filter(~inside))
    lake.append("raw.coverage", pl.DataFrame(coverage, schema=schemas.COVERAGE, orient="row"))
    (rsi,) = studies_of({"rsi": {}})

    build_indicators(lake, "BINANCE", SECOND_DAY.date(), [rsi], watermark=SECOND_DAY + 5 * HOUR)

    after = TimeWindow(pause.end, pause.end + rsi.warm_up * MINUTE)
    stored = lake.scan("market.indicators_1m", window=after).sort("open_time").collect()
    read = views.read_with_studies(lake, BTC, [rsi], step=MINUTE, window=after)
    first = [None] * (rsi.warm_up - 1)
    assert stored["value"].to_list()[:-1] == read["rsi"].to_list()[:-1] == first
    assert stored["value"][-1] == read["rsi"][-1] is not None
    assert read_gaps(lake, symbols=[BTC]).is_empty()
    view = views.read_dense_bars(lake, BTC, step=MINUTE, window=TimeWindow(BEGIN, after.end))
    assert view.filter(inside)["fill_kind"].unique().to_list() == ["gap"]


def streamed(start: datetime, end: datetime, *, every: int = 1, first: int = 0) -> pl.DataFrame:
    """Return a value in every so many minutes, each received 2 s after its minute began."""
    rows = [
        {
            "exchange": "BINANCE",
            "symbol": BTC,
            "event_time": start + n * MINUTE,
            "received_at": start + n * MINUTE + timedelta(seconds=2),
            "name": "rsi",
            "parameters": "length=3",
            "plot": "rsi",
            "value": 50.0,
            "session_id": "s1",
            "writer_id": "w",
            "sequence": first + n,
        }
        for n in range(0, (end - start) // MINUTE, every)
    ]
    return pl.DataFrame(rows, schema=schemas.RAW_INDICATORS)


def ingested(lake: Lakehouse) -> list[datetime]:
    rows = lake.scan("market.indicators_1m").filter(source="tradingview").sort("open_time")
    return rows.collect()["open_time"].to_list()


def test_the_last_value_of_a_day_is_final_by_the_first_of_the_next(lake: Lakehouse):
    land(lake, BEGIN, END)
    lake.append("raw.indicators", streamed(SECOND_DAY - HOUR, SECOND_DAY + HOUR))
    rsi = studies_of({"rsi": {"length": 3}})

    for day in (SECOND_DAY - DAY, SECOND_DAY):
        build_indicators(lake, "BINANCE", day.date(), rsi, watermark=SECOND_DAY + HOUR)

    assert ingested(lake) == [SECOND_DAY - HOUR + n * MINUTE for n in range(119)]


@pytest.mark.parametrize("every", [1, 7, 50, 130])
def test_ticks_keep_the_values_that_later_ones_make_final(lake: Lakehouse, every: int):
    land(lake, BEGIN, SECOND_DAY + 4 * HOUR)
    rsi = studies_of({"rsi": {"length": 3}})
    values = streamed(SECOND_DAY - HOUR, SECOND_DAY + 4 * HOUR, every=every)
    at = SECOND_DAY - HOUR
    while at < SECOND_DAY + 3 * HOUR:
        landed, at = at, at + 20 * MINUTE
        came = pl.col("event_time").is_between(landed, at, closed="left")
        lake.append("raw.indicators", values.filter(came))
        tick_indicators(lake, "BINANCE", rsi, watermark=at)
    ticked = content(lake)

    for day in (SECOND_DAY - DAY, SECOND_DAY):
        build_indicators(lake, "BINANCE", day.date(), rsi, watermark=at)

    assert len(ingested(lake)) == (240 - 1) // every
    since = pl.col("open_time") >= SECOND_DAY - HOUR
    assert_frame_equal(ticked.filter(since), content(lake).filter(since))


def test_the_first_tick_builds_the_day_before_as_far_as_it_has_minutes(lake: Lakehouse):
    at = SECOND_DAY + 10 * MINUTE
    land(lake, BEGIN, at)

    tick_indicators(lake, "BINANCE", studies_of({"rsi": {}}), watermark=at)

    ticked = content(lake).filter(symbol=BTC)
    bars = lake.scan("market.bars_1m", symbols=[BTC]).sort("open_time").collect()
    assert ticked["open_time"].to_list() == bars["open_time"].to_list()
    assert ticked["value"][20] is not None


def test_a_gap_that_goes_from_the_ledger_is_seen_by_the_next_tick(lake: Lakehouse):
    at, rsi = SECOND_DAY + 3 * HOUR, studies_of({"rsi": {}})
    land(lake, SECOND_DAY - 2 * HOUR, at)
    row = ("g", "BINANCE", BTC, at - HOUR, at - HOUR + MINUTE, "worker_down", "", *[None] * 3)
    gone = pl.DataFrame([row], schema=schemas.GAPS, orient="row")
    lake.append("market.gaps", gone)
    tick_indicators(lake, "BINANCE", rsi, watermark=at)
    nulls = content(lake)["value"].null_count()
    today = Slice("BINANCE", TimeWindow.of_day(SECOND_DAY.date()))

    lake.overwrite("market.gaps", gone.clear(), slice=today, since=lake.head("market.gaps"))
    tick_indicators(lake, "BINANCE", rsi, watermark=at)

    ticked = content(lake)
    assert nulls - ticked["value"].null_count() == 14
    build_indicators(lake, "BINANCE", SECOND_DAY.date(), rsi, watermark=at)
    assert content(lake).equals(ticked)
    assert tick_indicators(lake, "BINANCE", rsi, watermark=at) == []


def answer(lake: Lakehouse, *opens: datetime) -> None:
    """Land official minutes of the outage's *opens* and the answer that speaks for all of it."""
    bars = [("BINANCE", BTC, opened, *[100.0] * 4, 7.0, END) for opened in opens]
    lake.append("market.history_1m", pl.DataFrame(bars, schema=schemas.HISTORY, orient="row"))
    told = ("BINANCE", BTC, OUTAGE.start, OUTAGE.end, OUTAGE.start, "reached", None, END)
    lake.append("raw.fetches", pl.DataFrame([told], schema=schemas.FETCHES, orient="row"))


def test_minutes_in_which_nothing_was_traded_are_no_gap_for_indicators(lake: Lakehouse):
    """The market stood still in every other minute of an outage, and history says so."""
    rsi, day = studies_of({"rsi": {}}), SECOND_DAY - DAY
    land(lake, BEGIN, END)
    tick_indicators(lake, "BINANCE", rsi, watermark=END)
    nulls = content(lake).filter(symbol=BTC)["value"].null_count()
    traded = [OUTAGE.start + n * MINUTE for n in range(0, 20, 2)]

    answer(lake, *traded)
    filled = BARS.filter(symbol=BTC)[: len(traded)].with_columns(
        open_time=pl.Series(traded, dtype=schemas.UTC_TIME),
        flags=pl.lit(int(Flag.FILLED), pl.Int32),
    )
    lake.append("market.bars_1m", filled)
    tick_indicators(lake, "BINANCE", rsi, watermark=END)

    ticked = content(lake)
    assert ticked.filter(symbol=BTC)["value"].null_count() == nulls - 14 == 14
    build_indicators(lake, "BINANCE", day.date(), rsi, watermark=END)
    build_indicators(lake, "BINANCE", SECOND_DAY.date(), rsi, watermark=END)
    assert content(lake).equals(ticked)
    read = views.read_with_studies(lake, BTC, rsi, step=MINUTE)
    assert read["rsi"].to_list() == ticked.filter(symbol=BTC)["value"].to_list()
    dense = views.read_dense_bars(lake, BTC, step=MINUTE, window=OUTAGE)
    assert dense["fill_kind"].to_list() == [None, "quiet"] * 10


def test_an_answer_that_nothing_was_traded_is_seen_by_the_next_tick(lake: Lakehouse):
    rsi = studies_of({"rsi": {}})
    lake.append("market.bars_1m", BARS)
    lake.append("market.gaps", GAPS.with_columns(missed_volume=0.0))
    tick_indicators(lake, "BINANCE", rsi, watermark=END)
    nulls = content(lake).filter(symbol=BTC)["value"].null_count()

    answer(lake)
    tick_indicators(lake, "BINANCE", rsi, watermark=END)

    assert content(lake).filter(symbol=BTC)["value"].null_count() == nulls - 14
    assert tick_indicators(lake, "BINANCE", rsi, watermark=END) == []


@pytest.mark.parametrize("read", [read_gaps, read_unseen])
def test_a_gap_that_began_before_the_window_is_read_with_it(lake: Lakehouse, read):
    lake.append("market.gaps", GAPS)
    middle = OUTAGE.start + OUTAGE.length / 2

    within = read(lake, symbols=[BTC], window=TimeWindow(middle, SECOND_DAY))

    assert within.select("start", "end").rows() == [(OUTAGE.start, OUTAGE.end)]
    assert read(lake, window=TimeWindow(OUTAGE.end, SECOND_DAY)).is_empty()
    assert read(lake, window=TimeWindow(SECOND_DAY - DAY, OUTAGE.start)).is_empty()


def test_other_parameters_are_built_for_all_since_yesterday(lake: Lakehouse):
    land(lake, BEGIN, END)
    first, second = studies_of({"rsi": {}}), studies_of({"rsi": {"length": 7}, "sma": {}})
    for day in (SECOND_DAY - DAY, SECOND_DAY):
        build_indicators(lake, "BINANCE", day.date(), first, watermark=END)
    tick_indicators(lake, "BINANCE", first, watermark=END)

    tick_indicators(lake, "BINANCE", second, watermark=END)

    assert set(content(lake)["parameters"]) == {"length=7", "length=20"}
    head = lake.head("market.indicators_1m")
    assert tick_indicators(lake, "BINANCE", second, watermark=END) == []
    assert lake.head("market.indicators_1m") == head


def test_a_reader_has_the_parameters_of_the_settings_or_its_own(lake: Lakehouse):
    land(lake, BEGIN, END)
    lake.append("raw.coverage", marks())
    reader = Reader(lake, {"rsi": {"length": 5}})

    wide = reader.bars(BTC, indicators=["rsi", "rsi:7", "macd:5:35:5"], start=SECOND_DAY)
    other = Reader(lake).bars(BTC, indicators=["rsi:5", "rsi:7"], start=SECOND_DAY, carry=True)

    assert wide["rsi"].to_list()[600:] == pytest.approx(other["rsi_5"].to_list()[600:])
    assert {"rsi_7", "macd_5_35_5", "signal_5_35_5", "histogram_5_35_5"} <= set(wide.columns)
    assert wide["rsi"][0] is not None  # warm since the outage
    assert wide["macd_5_35_5"][0] is None
    twice = reader.bars(BTC, indicators="rsi:7, rsi:7.0,bollinger:20:2", last="2h")
    assert twice.columns[-4:] == ["rsi_7", "middle_20_2", "upper_20_2", "lower_20_2"]
    assert twice["rsi_7"].to_list() == wide["rsi_7"].tail(120).to_list()
    assert twice.equals(reader.bars(BTC, indicators=["rsi:7", "bollinger:20:2"], last="2h"))
    with pytest.raises(UsageError, match="last excludes start"):
        reader.bars(BTC, last="2h", start=SECOND_DAY)
    assert other["rsi_7"].null_count() == 0


def marks() -> pl.DataFrame:
    from lakehouse_pipeline.market.coverage import Mark
    from lakehouse_pipeline_tests.scripted import Script

    script = Script(start=BEGIN)
    script.mark(Mark.OPENED, "s1", 0)
    script.snapshot(0.2, "s1", BTC, last_price=1.0, cumulative_volume=1.0, trade=-3)
    return script.coverage


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"rsy": {}}, r"'rsy' is not known. Known: atr, bollinger, ema"),
        ({"rsi": {"period": 3}}, "rsi has no parameter 'period'. It has: length."),
        ({"vwap": {"length": 3}}, "vwap has no parameter 'length'. It has: none."),
        ({"rsi": {"length": 0}}, "rsi: length must be a whole number of bars, 1 to 10000, was 0."),
        ({"ema": {"length": 2.5}}, "ema: length must be a whole number"),
        ({"sma": {"length": float("nan")}}, "sma: length must be a whole number"),
        ({"macd": {"fast": 26, "slow": 12}}, "macd: fast must be less than slow, was 26 with 12."),
        ({"bollinger": {"width": -1}}, "bollinger: width must be more than 0, was -1."),
    ],
)
def test_what_cannot_be_built_is_one_line_with_the_mend(chosen, says: str):
    with pytest.raises(SettingsError, match=says) as failure:
        studies_of(chosen)

    assert "\n" not in str(failure.value)


def test_a_comma_too_many_asks_for_nothing():
    assert split_names(",rsi,,macd(5,10,3),") == ["rsi", "macd(5,10,3)"]


@pytest.mark.parametrize(
    ("text", "problem", "mend"),
    [
        ("rsi:", "its parameters are numbers", "Write rsi:14 or rsi."),
        ("rsi:abc", "'rsi:abc': its parameters are numbers", "Write rsi:14 or rsi."),
        ("rsi:7:8", "rsi has 1 parameter (length), and 2 are given", "Write rsi:14 or rsi."),
        ("rsi:0", "length must be a whole number", "Mend its parameters"),
        ("vwap:3", "vwap has no parameters, and 1 is given", "Write vwap."),
        ("macd(5,10,3)", "'macd(5,10,3)' is not known", "Write macd:5:10:3."),
        ("MACD (fast=5, slow=10, signal=3)", "is not known", "Write macd:5:10:3."),
        ("rsi_7", "'rsi_7' is not known", "Write rsi:7."),
        ("bollinger(20,2.5)", "is not known", "Write bollinger:20:2.5."),
        ("rsi()", "is not known", "Write rsi."),
        ("vwap(3)", "is not known", "Write vwap."),
        ("rsj", "'rsj' is not known", "macd:12:26:9"),
        ("stoch", "'stoch' is not known", "Known: atr, bollinger"),
    ],
)
def test_a_reader_that_asks_for_nonsense_is_told_what_to_write(text: str, problem: str, mend: str):
    with pytest.raises(SettingsError) as failure:
        studies_named(split_names(text), {})

    assert problem in failure.value.problem
    assert mend in failure.value.mend


def test_names_are_parted_by_commas_outside_of_brackets():
    assert split_names("rsi,macd:5:10:3") == ["rsi", "macd:5:10:3"]
    assert split_names("rsi,macd(5,10,3),sma") == ["rsi", "macd(5,10,3)", "sma"]


def test_a_name_asked_for_twice_is_one_study():
    assert [study.name for study in studies_named(["rsi", " RSI", "sma:5", "sma: 5"], {})] == [
        "rsi",
        "sma",
    ]


def test_a_whole_number_is_the_same_however_it_is_written():
    (study,) = studies_of({"rsi": {"length": 14.0}})
    (wide,) = studies_of({"bollinger": {"width": 2}})

    assert study.label == "length=14"
    assert wide.label == "length=20,width=2.0"
