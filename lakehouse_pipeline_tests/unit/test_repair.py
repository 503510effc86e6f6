"""What is asked of chart history, and what a gap becomes by the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lakehouse_pipeline.market.repair import (
    Ask,
    Ended,
    Reason,
    Status,
    judge,
    plan,
    revisions,
    still_unseen,
)
from lakehouse_pipeline.market.schemas import FETCHES, GAPS, HISTORY
from lakehouse_pipeline.market.windows import DAY, HOUR, MINUTE, TimeWindow

BTC, ETH = "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"
TEN = datetime(2026, 1, 5, 10, tzinfo=UTC)
NOON = TEN + 2 * HOUR
REACH = 5_000 * MINUTE


def at(minute: int, second: int = 0) -> datetime:
    return TEN + timedelta(minutes=minute, seconds=second)


def gaps(*rows: tuple, missed: float | None = 1.0) -> pl.DataFrame:
    """Gaps of (symbol, start, end) or (symbol, start, end, cause)."""
    return pl.DataFrame(
        [
            (f"g{n}", "BINANCE", row[0], *row[1:3], (*row, "feed_gap")[3], "", missed, None, None)
            for n, row in enumerate(rows)
        ],
        schema=GAPS,
        orient="row",
    )


def fetches(*rows: tuple) -> pl.DataFrame:
    """Fetches of (symbol, start, end, reached, ended)."""
    told = [("BINANCE", *row, None, NOON) for row in rows]
    return pl.DataFrame(told, schema=FETCHES, orient="row")


def history(*opens: datetime, symbol: str = BTC, close: float = 1.0) -> pl.DataFrame:
    bars = [("BINANCE", symbol, opened, 1.0, 2.0, 0.5, close, 7.0, NOON) for opened in opens]
    return pl.DataFrame(bars, schema=HISTORY, orient="row")


def asks(found: pl.DataFrame, told: pl.DataFrame, wanted: dict | None = None) -> list[Ask]:
    return plan(found, told, wanted or {}, NOON, reach=REACH)


def since(starts: dict[str, datetime]) -> dict[str, list[TimeWindow]]:
    """Symbols wanted from their start on."""
    end = datetime.max.replace(tzinfo=UTC)
    return {symbol: [TimeWindow(start, end)] for symbol, start in starts.items()}


def verdict(found: pl.DataFrame, official: pl.DataFrame, told: pl.DataFrame) -> dict:
    (row,) = judge(found, official, told, NOON, reach=REACH).to_dicts()
    return row


def test_a_gap_is_asked_for_in_whole_minutes():
    assert asks(gaps((BTC, at(1, 30), at(3, 10))), fetches()) == [Ask(BTC, at(1))]


def test_what_was_asked_is_not_asked_again():
    found = gaps((BTC, at(1, 30), at(3, 10)), (BTC, at(20), at(21)))
    told = fetches((BTC, at(0), at(10), at(0), Ended.REACHED))

    assert asks(found, told) == [Ask(BTC, at(20))]
    assert asks(found[:1], told) == []


def test_an_answer_that_ended_without_a_word_is_asked_for_again():
    told = fetches((BTC, at(0), at(10), at(5), Ended.EMPTY))

    assert asks(gaps((BTC, at(1), at(2)), (BTC, at(6), at(7))), told) == [Ask(BTC, at(1))]
    assert asks(gaps((BTC, at(6), at(7))), told) == []


def test_nothing_is_asked_beyond_reach_or_before_it_is_closed():
    found = gaps((BTC, NOON - REACH - HOUR, NOON - REACH - MINUTE), (BTC, NOON, NOON + MINUTE))

    assert asks(found, fetches()) == []


def test_no_trading_is_no_reason_to_ask():
    assert asks(gaps((BTC, at(1), at(3), "venue_halt")), fetches()) == []


def test_finished_days_are_asked_for_after_gaps_and_older_ones_first():
    midnight = NOON.replace(hour=0)
    wanted = since(
        {
            "BINANCE:A": midnight - HOUR,
            "BINANCE:B": midnight - DAY - HOUR,
            "BINANCE:C": midnight + HOUR,
        }
    )
    led = fetches(
        *(
            (symbol, window.start - DAY, window.start, window.start - DAY, Ended.REACHED)
            for symbol, (window,) in wanted.items()
        )
    )

    assert asks(gaps((ETH, at(1), at(3))), led, wanted) == [
        Ask(ETH, at(1)),
        Ask("BINANCE:B", midnight - DAY - HOUR),
        Ask("BINANCE:A", midnight - HOUR),
    ]


def test_the_day_before_a_symbols_first_data_is_asked_for_once():
    wanted = since({BTC: at(1, 30), ETH: NOON - REACH - HOUR})
    told = fetches((BTC, at(1) - DAY, at(5), at(1) - DAY, Ended.REACHED))

    assert asks(gaps(), fetches(), wanted)[-1] == Ask(BTC, at(1) - DAY)
    assert BTC not in {ask.symbol for ask in asks(gaps(), told, wanted)}


def test_a_gap_with_bars_in_history_is_filled():
    row = verdict(
        gaps((BTC, at(1, 30), at(3, 10))),
        history(at(1), at(3)),
        fetches((BTC, at(1), at(10), at(1), Ended.REACHED)),
    )

    assert (row["status"], row["reason"]) == (Status.FILLED, None)
    assert (row["seconds_filled"], row["seconds_lost"]) == (100.0, 0.0)


def test_a_gap_nobody_asked_about_is_open():
    row = verdict(gaps((BTC, at(1), at(3))), history(), fetches())

    assert (row["status"], row["seconds_lost"]) == (Status.OPEN, 120.0)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ((BTC, at(0), at(10), at(0), Ended.REACHED), Reason.NO_DATA),
        ((BTC, at(0), at(10), None, Ended.UNKNOWN_SYMBOL), Reason.NO_DATA),
        ((BTC, at(0), at(10), None, Ended.NOT_ENTITLED), Reason.NOT_ENTITLED),
        ((BTC, at(0), at(10), at(8), Ended.LIMIT), Reason.OUT_OF_REACH),
    ],
)
def test_a_gap_that_cannot_be_filled_says_why(told: tuple, reason: Reason):
    row = verdict(gaps((BTC, at(1), at(3))), history(), fetches(told))

    assert (row["status"], row["reason"]) == (Status.UNFILLABLE, reason)
    assert (row["seconds_filled"], row["seconds_lost"]) == (0.0, 120.0)


def test_a_gap_older_than_the_reach_is_out_of_it():
    start = NOON - REACH - HOUR
    row = verdict(gaps((BTC, start, start + MINUTE)), history(), fetches())

    assert (row["status"], row["reason"]) == (Status.UNFILLABLE, Reason.OUT_OF_REACH)


def test_a_gap_half_beyond_the_limit_is_partly_filled():
    row = verdict(
        gaps((BTC, at(1, 30), at(3))),
        history(at(2)),
        fetches((BTC, at(1), at(10), at(2), Ended.LIMIT)),
    )

    assert (row["status"], row["reason"]) == (Status.PARTLY_FILLED, Reason.OUT_OF_REACH)
    assert (row["seconds_filled"], row["seconds_lost"]) == (60.0, 30.0)


def test_a_gap_in_which_nothing_was_traded_is_filled_by_that_word():
    told = fetches((BTC, at(0), at(10), at(0), Ended.REACHED))
    row = verdict(gaps((BTC, at(1), at(3)), missed=0.0), history(), told)

    assert (row["status"], row["seconds_lost"]) == (Status.FILLED, 0.0)


def test_a_halt_of_the_venue_lost_nothing():
    row = verdict(gaps((BTC, at(1), at(3), "venue_halt")), history(), fetches())

    assert (row["status"], row["seconds_lost"]) == (Status.NO_TRADING, 0.0)


def test_only_new_and_changed_bars_are_revisions():
    known = history(at(1), at(2))
    fetched = pl.concat([history(at(1), at(3)), history(at(2), close=1.5)])

    assert revisions(known, fetched)["open_time"].to_list() == [at(3), at(2)]
    assert revisions(known, known).is_empty()


def left_of(found: pl.DataFrame, official: pl.DataFrame, told: pl.DataFrame) -> list[tuple]:
    return still_unseen(found, official, told).select("gap_id", "start", "end").rows()


def test_a_silent_minute_of_a_filled_gap_is_no_longer_unseen():
    found = gaps((BTC, at(1, 30), at(4, 10)), (ETH, at(1), at(3)))
    told = fetches((BTC, at(0), at(10), at(0), Ended.REACHED))

    assert left_of(found, history(at(1), at(3), at(4)), told) == [
        ("g0", at(1, 30), at(2)),
        ("g0", at(3), at(4, 10)),
        ("g1", at(1), at(3)),
    ]


def test_a_gap_all_silent_is_gone_if_the_counter_did_not_move():
    told = fetches((BTC, at(0), at(10), at(0), Ended.REACHED))
    quiet, moved, unknown = (gaps((BTC, at(1), at(3)), missed=m) for m in (0.0, 1.0, None))

    assert left_of(quiet, history(), told) == []
    assert left_of(moved, history(), told) == left_of(unknown, history(), told)
    assert left_of(moved, history(), told) == [("g0", at(1), at(3))]
    assert left_of(quiet, history(), fetches()) == [("g0", at(1), at(3))]


@pytest.mark.parametrize("missed", [0.0, 1.0, None])
def test_what_is_silent_is_what_a_verdict_counts_as_silent(missed: float | None):
    found = gaps((BTC, at(1, 30), at(6, 10)), missed=missed)
    told = fetches((BTC, at(3), at(10), at(3), Ended.REACHED))
    for official in (history(), history(at(4))):
        left = still_unseen(found, official, told)
        length = (pl.col("end") - pl.col("start")).dt.total_seconds().sum()
        cut = found.select(length).item() - left.select(length).item()

        assert cut == verdict(found, official, told)["seconds_silent"]
