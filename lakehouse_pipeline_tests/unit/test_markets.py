"""Markets are functions of market time: what they send, and that it agrees with their trades."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse_pipeline.errors import InputFileError, UsageError
from lakehouse_pipeline.feedserver import Counter, generated_market, trades_market

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)
BTC = "BINANCE:BTCUSDT"
MARKET = generated_market([BTC, "BINANCE:ATOMUSDT"])

seconds = st.floats(-7_300, 7_300)
counters = st.sampled_from(list(Counter))


@settings(max_examples=25)
@given(seconds, st.floats(0, 1_800), counters, st.sampled_from([BTC, "BINANCE:ATOMUSDT"]))
def test_a_snapshot_folded_with_the_updates_is_the_later_snapshot(
    offset: float, length: float, counter: Counter, symbol: str
) -> None:
    since = MIDNIGHT + timedelta(seconds=offset)
    until = since + timedelta(seconds=length)

    folded = MARKET.snapshot(symbol, since, counter)
    for update in MARKET.updates(symbol, since, until, counter):
        folded |= update.values

    assert folded == MARKET.snapshot(symbol, until, counter)


@settings(max_examples=25)
@given(seconds, st.lists(st.floats(0, 900), min_size=1, max_size=5))
def test_updates_do_not_depend_on_how_time_is_cut(offset: float, cuts: list[float]) -> None:
    start = MIDNIGHT + timedelta(seconds=offset)
    ends = sorted(start + timedelta(seconds=cut) for cut in cuts)

    pieces = []
    for since, until in zip([start, *ends], ends, strict=False):
        pieces += MARKET.updates(BTC, since, until, Counter.SESSION)

    assert pieces == MARKET.updates(BTC, start, ends[-1], Counter.SESSION)


def test_the_same_seed_makes_the_same_market_and_another_another() -> None:
    again, other = generated_market([BTC]), generated_market([BTC], seed=1)
    window = NOON, NOON + timedelta(minutes=1)

    assert again.tape(BTC, *window).equals(MARKET.tape(BTC, *window))
    assert not other.tape(BTC, *window).equals(MARKET.tape(BTC, *window))


def test_packets_have_the_keys_of_real_captures() -> None:
    patterns = {
        frozenset(update.values) - {"chp", "high_price", "low_price"}
        for update in generated_market([BTC], pace=0.3).updates(
            BTC, NOON, NOON + timedelta(hours=1), Counter.SESSION
        )
        if "lp_time" in update.values
    }

    assert patterns == {
        frozenset({"volume", "lp_time"}),
        frozenset({"lp_time", "lp", "ch"}),
        frozenset({"volume", "lp_time", "lp", "ch"}),
        frozenset({"lp_time"}),
    }


def test_bid_and_ask_come_in_packets_of_their_own() -> None:
    for update in MARKET.updates(BTC, NOON, NOON + timedelta(minutes=5), Counter.SESSION):
        keys = set(update.values)
        book = keys & {"bid", "ask", "bid_size", "ask_size"}
        assert not book or book == keys


def test_change_percent_is_sent_only_when_its_two_decimals_change() -> None:
    known = MARKET.snapshot(BTC, NOON, Counter.SESSION)
    for update in MARKET.updates(BTC, NOON, NOON + timedelta(minutes=10), Counter.SESSION):
        assert "chp" not in update.values or update.values["chp"] != known["chp"]
        known |= update.values
        assert known["chp"] == round(100 * known["ch"] / known["prev_close_price"], 2)
        assert known["lp"] == pytest.approx(known["prev_close_price"] + known["ch"])


def test_a_symbol_has_at_most_one_trade_packet_a_second() -> None:
    sent = [
        update.values["lp_time"]
        for update in MARKET.updates(BTC, NOON, NOON + timedelta(minutes=5), Counter.SESSION)
        if "lp_time" in update.values
    ]

    assert len(sent) == len(set(sent))
    assert sent == sorted(sent)


def test_the_session_counter_adds_up_to_the_traded_volume_of_each_minute() -> None:
    end = NOON + timedelta(minutes=10)
    bars = MARKET.bars(BTC, timedelta(minutes=1), NOON, end)
    known = MARKET.snapshot(BTC, NOON + timedelta(seconds=0.9), Counter.SESSION)
    counted: dict[int, float] = {}
    for update in MARKET.updates(
        BTC, NOON + timedelta(seconds=0.9), end + timedelta(seconds=0.9), Counter.SESSION
    ):
        if "volume" in update.values:
            minute = update.values["lp_time"] // 60 * 60
            counted[minute] = counted.get(minute, 0.0) + update.values["volume"] - known["volume"]
            known["volume"] = update.values["volume"]

    assert bars["volume"].to_list() == pytest.approx(list(counted.values()))


def test_the_day_turns_at_midnight_with_a_full_set_of_day_fields() -> None:
    before = MARKET.snapshot(BTC, MIDNIGHT + timedelta(seconds=0.9), Counter.SESSION)
    first = next(
        update.values
        for update in MARKET.updates(
            BTC,
            MIDNIGHT + timedelta(seconds=0.9),
            MIDNIGHT + timedelta(minutes=1),
            Counter.SESSION,
        )
        if "lp_time" in update.values
    )

    assert before["open_time"] == MIDNIGHT.timestamp() - 86_400
    assert first["open_time"] == MIDNIGHT.timestamp()
    assert first["prev_close_price"] == before["lp"]
    assert first["volume"] < before["volume"] / 100
    assert {"open_price", "high_price", "low_price", "ch", "chp"} <= set(first)


def test_a_rolling_counter_is_the_volume_of_the_last_24_hours() -> None:
    update = next(
        update
        for update in MARKET.updates(BTC, NOON, NOON + timedelta(minutes=1), Counter.ROLLING)
        if "volume" in update.values
    )
    end = datetime.fromtimestamp(update.values["lp_time"] + 1, UTC)
    traded = MARKET.tape(BTC, end - timedelta(days=1), end)["size"].sum()

    assert update.values["volume"] == pytest.approx(traded)


@pytest.mark.parametrize("minutes", [1, 5, 60, 1_440])
def test_bars_are_those_of_the_tape(minutes: int) -> None:
    step = timedelta(minutes=minutes)
    start, end = MIDNIGHT, MIDNIGHT + timedelta(hours=30, minutes=7, seconds=13)
    tape = MARKET.tape(BTC, start, end)
    expected = (
        tape.sort("time")
        .group_by_dynamic("time", every=step)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("size").sum(),
        )
        .rename({"time": "open_time"})
    )

    bars = MARKET.bars(BTC, step, start, end)

    assert bars.drop("volume").equals(expected.drop("volume"))
    assert bars["volume"].to_list() == pytest.approx(expected["volume"].to_list())


def test_a_malformed_symbol_is_refused() -> None:
    with pytest.raises(UsageError, match="'btcusdt' is malformed"):
        generated_market(["btcusdt"])


# Trades of files


def trades_file(folder: Path, start: datetime, *trades: tuple[float, float, float]) -> Path:
    """Write trades of (seconds after *start*, price, size)."""
    path = folder / "trades.parquet"
    origin = round(start.timestamp() * 1_000_000)
    pl.DataFrame(
        {
            "ts_us": [origin + round(at * 1_000_000) for at, _, _ in trades],
            "price": [price for _, price, _ in trades],
            "size": [size for _, _, size in trades],
        }
    ).write_parquet(path)
    return path


def test_recorded_trades_keep_their_time_and_are_sent_after_their_second(tmp_path: Path) -> None:
    path = trades_file(tmp_path, NOON, (0.2, 10.0, 1.0), (0.9, 10.5, 2.0), (4.0, 10.5, 0.25))
    market = trades_market({BTC: path})

    updates = market.updates(BTC, NOON, NOON + timedelta(minutes=1), Counter.SESSION)

    assert market.starts_at == NOON + timedelta(seconds=0.2)
    assert [update.values["volume"] for update in updates] == [3.0, 3.25]
    assert updates[0].values["lp"] == 10.5
    assert "lp" not in updates[1].values
    assert timedelta(seconds=1) < updates[0].at - NOON < timedelta(seconds=2)


def test_a_start_outside_the_recorded_time_moves_the_trades_there(tmp_path: Path) -> None:
    path = trades_file(tmp_path, NOON, (0.2, 10.0, 1.0), (60.0, 10.0, 1.0))
    later = NOON + timedelta(days=40, seconds=7.5)

    assert trades_market({BTC: path}, start=later).starts_at == NOON + timedelta(
        days=40, seconds=7.2
    )
    assert trades_market({BTC: path}, start=NOON).starts_at == NOON + timedelta(seconds=0.2)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_text("no")
    lacking = tmp_path / "lacking.parquet"
    pl.DataFrame({"ts_us": [1], "price": [1.0]}).write_parquet(lacking)

    with pytest.raises(InputFileError, match=r"broken\.parquet cannot be read"):
        trades_market({BTC: broken})
    with pytest.raises(InputFileError, match="lacks the column 'size'"):
        trades_market({BTC: lacking})


def test_real_trades_across_midnight_reset_the_counter_and_lose_nothing(shared_data: Path) -> None:
    name = "BINANCE:ETHUSDT"
    market = trades_market(
        {name: shared_data / "trades_BINANCE_ETHUSDT_20240808-09.parquet"},
        {name: shared_data / "quotes_BINANCE_ETHUSDT_20240808-09.parquet"},
    )
    assert market.starts_at is not None
    midnight = datetime(2024, 8, 9, tzinfo=UTC)
    end = midnight + timedelta(hours=1)

    updates = market.updates(name, market.starts_at, end, Counter.SESSION)
    volumes = [update.values["volume"] for update in updates if "volume" in update.values]
    falls = [i for i in range(1, len(volumes)) if volumes[i] < volumes[i - 1]]
    tape = market.tape(name, market.starts_at, end)

    assert len(tape) == 14_515
    assert len(falls) == 1
    assert volumes[falls[0] - 1] + volumes[-1] == pytest.approx(tape["size"].sum())
    assert any("bid" in update.values for update in updates)
