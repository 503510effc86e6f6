"""Faults of single messages: each row that lands, each refusal with its reason, row for row.

None of them costs a second of coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from lakehouse_pipeline.feedserver import fault_kinds as faults
from lakehouse_pipeline.feedserver.instruments import BASES
from lakehouse_pipeline.market.coverage import covered
from lakehouse_pipeline.market.windows import TimeWindow
from lakehouse_pipeline_tests.integration.feed.wire import Wire, expected, landed, packets

SYMBOLS = [f"BINANCE:{base}USDT" for base in BASES][:8]
HELD = 10  # packets that a fault may still hold back at the end
UNSEEN = timedelta(seconds=3)  # sent so late that the worker may have left already
PLAIN = {"opened", "subscribed", "described", "alive", "ended"}


@pytest.fixture
def listen(play) -> Callable[..., SimpleNamespace]:
    """Record through a fault; return what landed, what left the server and what it says."""

    def start(fault: faults.Fault) -> SimpleNamespace:
        wire = Wire(trouble=fault)
        played = play([fault, wire], lambda worker: worker.quotes_committed > 400, symbols=SYMBOLS)
        return SimpleNamespace(
            **vars(played),
            texts=wire.of_the_session(),
            sent=[(packet.name, packet.values) for packet in played.server.sent],
        )

    return start


def assert_landed(played: SimpleNamespace, refuse: Callable[[dict], str | None]) -> None:
    """Compare every row and every refusal with what the texts that left must become."""
    due = expected(played.texts, refuse)
    rows = landed(played.quotes)
    rejects = played.rejects.sort("sequence")
    refused = [
        (reason, payload if symbol is None else symbol)
        for reason, symbol, payload in rejects.select("reason", "symbol", "payload").iter_rows()
    ]

    assert rows == due.rows[: len(rows)]
    assert refused == due.rejects[: len(refused)]
    # What is missing at the end left the server after the worker had stopped listening.
    until = played.coverage.filter(kind="ended")["end"][0] - UNSEEN
    seen = sum(packet.at < until for packet in played.server.sent)
    assert len(rows) + len(refused) >= seen - HELD
    assert not played.quotes.select("writer_id", "sequence").is_duplicated().any()
    assert played.quotes.sort("sequence")["received_at"].is_sorted()


def assert_all_covered(played: SimpleNamespace) -> None:
    """One session, from each symbol's first data to the last frame, and nothing said against it."""
    coverage = played.coverage
    assert set(coverage["kind"]) <= PLAIN
    assert coverage.filter(kind="ended")["reason"].to_list() == ["stopped"]
    whole = TimeWindow(coverage["start"].min(), coverage["end"].max())
    for symbol in SYMBOLS:
        assert len(covered(coverage, symbol, whole)) == 1


# What can be true lands as it left, and nothing is refused.


def nothing(_: dict[str, Any]) -> None:
    return None


def as_sent(played: SimpleNamespace) -> None:
    assert packets(played.texts) == played.sent


def some_twice(played: SimpleNamespace) -> None:
    left = packets(played.texts)
    assert once(left) == once(played.sent)
    assert len(played.sent) < len(left) <= 2 * len(played.sent)
    assert len(once(landed(played.quotes))) < played.quotes.height


def out_of_order(played: SimpleNamespace) -> None:
    left, missing = packets(played.texts), list(played.sent)
    for packet in left:
        missing.remove(packet)
    assert len(missing) <= HELD
    assert left != played.sent[: len(left)]


def counters_fall(played: SimpleNamespace) -> None:
    as_sent(played)
    falls = 0
    told = [(n, v["volume"]) for n, v in packets(played.texts) if "volume" in v]
    for symbol in SYMBOLS:
        volume = (
            played.quotes.filter(
                pl.col("symbol") == symbol, pl.col("changed").str.contains("cumulative_volume")
            )
            .sort("sequence")["cumulative_volume"]
            .to_list()
        )
        assert volume == [value for name, value in told if name == symbol][: len(volume)]
        falls += sum(after < before for before, after in pairwise(volume))
    assert falls > 8


def trades_of_the_future(played: SimpleNamespace) -> None:
    as_sent(played)
    told = pl.col("changed").str.contains("last_time") & (pl.col("kind") != "restore")
    quotes = played.quotes.sort("sequence").filter(told)
    ahead = (quotes["event_time"] - quotes["received_at"]) > timedelta(seconds=20)
    assert 3 < ahead.sum() < len(ahead) - 3
    assert ahead.is_sorted()  # from the step on, and never before


def no_value_is_null(played: SimpleNamespace) -> None:
    as_sent(played)
    told = played.quotes.filter(pl.col("changed").str.contains("cumulative_volume"))
    assert 0 < told["cumulative_volume"].null_count() < told.height
    assert told["cumulative_volume"].max() < 1e99


def once(items: Sequence[Any]) -> list[Any]:
    """Return *items* without those that only repeat the one before."""
    return [one for number, one in enumerate(items) if number == 0 or one != items[number - 1]]


Claim = Callable[[SimpleNamespace], None]
TRUE: dict[str, tuple[faults.Fault, Claim]] = {
    "duplicate": (faults.Duplicate(share=0.3), some_twice),
    "reorder": (faults.Reorder(share=0.3), out_of_order),
    "late": (faults.Late(share=0.1, behind=20), out_of_order),
    "volume_backwards": (faults.VolumeBackwards(share=0.3), counters_fall),
    "clock_step": (faults.ClockStep(by=timedelta(seconds=40)), trades_of_the_future),
    "no_value": (faults.BadValues(fields=["volume"], value=1e100, share=0.3), no_value_is_null),
    "null": (faults.BadValues(fields=["ch"], value=None, share=0.3), as_sent),
    "raw_text": (faults.RawText(), as_sent),
    "raw_text_in_bytes": (faults.RawText(count="bytes"), as_sent),
    "skewed_stamps": (faults.SkewedStamps(share=1.0), as_sent),
}


@pytest.mark.parametrize("name", sorted(TRUE))
def test_what_can_be_true_lands_as_it_left_and_refuses_nothing(listen, name: str):
    fault, claim = TRUE[name]

    played = listen(fault)

    assert played.rejects.is_empty()
    assert_landed(played, nothing)
    claim(played)
    assert_all_covered(played)


# What cannot be true is refused with its reason; the rest lands as if it had not been there.


def carries(key: str, value: Any) -> Callable[[dict[str, Any]], str | None]:
    return lambda values: f"incredible_{key}" if values.get(key) == value else None


def bad(key: str, value: Any) -> tuple[faults.Fault, Callable[[dict], str | None], str]:
    fault = faults.BadValues(fields=[key], value=value, share=0.3)
    return fault, carries(key, value), f"incredible_{key}"


SPOILED: dict[str, tuple[faults.Fault, Callable[[dict], str | None], str]] = {
    "truncated": (faults.Truncated(share=0.2), nothing, "malformed_framing"),
    "garbage": (faults.Garbage(share=0.2), nothing, "malformed_framing"),
    "wrong_length": (faults.WrongLength(share=0.2), nothing, "malformed_framing"),
    "unknown": (faults.Unknown(share=0.2), nothing, "unknown_message"),
    "negative_price": bad("lp", -1.5),
    "absurd_price": bad("lp", 1e30),
    "negative_volume": bad("volume", -0.5),
    "text_for_a_number": bad("bid", "cheap"),
}


@pytest.mark.parametrize("name", sorted(SPOILED))
def test_what_cannot_be_true_is_refused_and_the_rest_lands_as_it_left(listen, name: str):
    fault, refuse, reason = SPOILED[name]

    played = listen(fault)

    assert set(played.rejects["reason"]) == {reason}
    assert played.rejects.height > 3
    assert_landed(played, refuse)
    assert_all_covered(played)


def test_the_oracle_itself_sees_a_row_that_is_missing_changed_or_doubled(listen):
    played = listen(faults.Duplicate(share=0.3))
    quotes = played.quotes.sort("sequence")
    middle = quotes.height // 2

    changed = quotes.with_columns(bid=pl.col("bid") + 1)
    for wrong in (
        pl.concat([quotes[:middle], quotes[middle + 1 :]]),
        pl.concat([quotes[: middle + 1], quotes[middle:]]),
        changed,
        quotes[:middle],
    ):
        with pytest.raises(AssertionError):
            assert_landed(SimpleNamespace(**{**vars(played), "quotes": wrong}), nothing)
