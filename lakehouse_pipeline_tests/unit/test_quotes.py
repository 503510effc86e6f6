"""What one update of the feed means, and in which order updates count."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from lakehouse_pipeline.market.arrays import codes, text_changes
from lakehouse_pipeline.market.quotes import (
    COLUMNS,
    NUMBERS,
    Kind,
    canonical,
    changed_columns,
    classify,
    event_time,
    frame,
    numbered,
    observes_counter,
    showing_counter,
)
from lakehouse_pipeline.market.schemas import QUOTES
from lakehouse_pipeline_tests.scripted import START, Script


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"lp", "lp_time", "volume", "ch"}, Kind.PRICE),
        ({"lp"}, Kind.PRICE),
        ({"volume", "lp_time"}, Kind.VOLUME),
        ({"volume"}, Kind.VOLUME),
        ({"lp_time"}, Kind.TIME),
        ({"bid", "ask"}, Kind.QUOTE),
        ({"bid_size"}, Kind.QUOTE),
        ({"bid", "lp_time"}, Kind.TIME),
        ({"description", "pricescale"}, Kind.RESTORE),
        ({"update_mode"}, Kind.RESTORE),
        ({"volume", "open_price", "prev_close_price", "ch", "chp"}, Kind.RESTORE),
        ({"volume", "lp_time", "lp", "open_price"}, Kind.PRICE),
    ],
)
def test_an_update_is_of_the_kind_its_fields_say(changed: set[str], kind: Kind):
    assert classify(changed, restoring=False) == kind


def test_whatever_comes_with_the_first_snapshot_restores():
    assert classify({"lp", "lp_time", "volume"}, restoring=True) == Kind.RESTORE


def test_a_trade_happened_at_its_second_and_a_quote_when_it_was_seen():
    seen, traded = START, START - timedelta(seconds=2)

    assert [event_time(kind, traded, seen) for kind in Kind] == [traded] * 3 + [seen] * 2
    assert event_time(Kind.PRICE, None, seen) == seen


def test_changed_columns_are_ours_in_schema_order():
    assert changed_columns({"volume", "lp", "description"}) == "last_price,cumulative_volume"
    assert [name for name in QUOTES if name in COLUMNS.values()] == list(COLUMNS.values())


def test_rows_become_a_frame_of_the_schema():
    assert frame([]).schema == QUOTES
    assert Script().trade(1, 1.0, 1.0).quotes.schema == QUOTES


def test_rows_are_ordered_and_repeats_dropped():
    script = Script().trade(2.5, 1.0, 1.0).trade(2.5, 2.0, 1.0).trade(1.5, 3.0, 1.0)
    script.trade(2.1, 4.0, 1.0, symbol="BINANCE:ADAUSDT")
    quotes = script.quotes

    ordered = canonical(quotes.sample(fraction=3, with_replacement=True, seed=4).vstack(quotes))

    assert ordered["last_price"].to_list() == [4.0, 3.0, 1.0, 2.0]


def test_ordered_rows_are_passed_through():
    quotes = Script().trade(1.5, 1.0, 1.0).trade(2.5, 2.0, 1.0).quotes

    assert canonical(quotes) is quotes


def test_equal_numbers_of_two_writers_are_two_rows():
    one, other = Script(writer="a").trade(1.5, 1.0, 1.0), Script(writer="b").trade(1.5, 2.0, 1.0)

    both = canonical(other.quotes.vstack(one.quotes))

    assert both["writer_id"].to_list() == ["a", "b"]


def test_who_shows_the_counter_is_told_from_what_changed():
    texts = ["last_price,last_time,cumulative_volume,bid", "last_time,cumulative_volume", "bid"]
    texts += ["last_price,last_time", "last_price,cumulative_volume", "cumulative_volume", "", None]
    kinds = [kind for kind in Kind if kind != Kind.QUOTE]
    rows = pl.DataFrame(
        {
            "changed": texts * len(kinds),
            "kind": [kind.value for kind in kinds for _ in texts],
            "cumulative_volume": 1.0,
        }
    )

    shown = showing_counter(rows["changed"], numbered(rows["kind"]))

    expected = rows.select(observes_counter().fill_null(value=False)).to_series()
    assert shown.tolist() == expected.to_list()


def test_kinds_are_numbered_wherever_their_text_is_stored():
    kinds = pl.Series([*(kind.value for kind in Kind), "price of another kind", "other"])

    numbers = [*NUMBERS.values(), NUMBERS[Kind.PRICE], 0]  # told by how they begin
    assert numbered(kinds.slice(1)).tolist() == numbers[1:]
    assert numbered(pl.concat([kinds, kinds])).tolist() == numbers * 2
    assert numbered(kinds.clear()).tolist() == []


def test_equal_texts_are_one_run_wherever_they_are_stored():
    long, longer = "BINANCE:BTCUSDT", "BINANCE:BTCUSDT.P"
    texts = pl.concat([pl.Series([long, long, longer]), pl.Series([longer, "ETH", "ETH", long])])

    assert text_changes(texts).tolist() == [0, 2, 4, 6]
    assert text_changes(texts.slice(1, 4)).tolist() == [0, 1, 3]
    assert text_changes(pl.Series([None, None, "a", "a", None], dtype=pl.String)).tolist() == [
        *(0, 2, 4),
    ]
    assert text_changes(texts.head(1)).tolist() == [0]
    assert text_changes(texts.clear()).tolist() == []
    assert codes(texts).tolist() == [0, 0, 1, 1, 2, 2, 3]
