"""Repair converges and accounts for every second, whatever the gaps and the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.market.repair import Ended, Status, judge, plan, revisions
from lakehouse_pipeline.market.schemas import FETCHES, GAPS, HISTORY
from lakehouse_pipeline.market.windows import DAY, MINUTE, TimeWindow, floor

NOW = datetime(2026, 1, 8, 12, 0, 30, tzinfo=UTC)
REACH = 5_000 * MINUTE
SYMBOLS = st.sampled_from(["BINANCE:A", "BINANCE:B"])
CAUSES = st.sampled_from(["feed_gap", "worker_down", "venue_halt"])
INSTANTS = st.integers(0, 5 * 86_400 - 600).map(lambda s: NOW - 5 * DAY + timedelta(seconds=s))


@st.composite
def ledgers(draw) -> pl.DataFrame:
    rows = []
    for number in range(draw(st.integers(0, 5))):
        start = draw(INSTANTS)
        end = min(start + timedelta(seconds=draw(st.integers(1, 600))), floor(start, DAY) + DAY)
        missed = draw(st.none() | st.sampled_from([0.0, 2.5]))
        told = (draw(CAUSES), "", missed, None, None)
        rows.append((f"g{number}", "BINANCE", draw(SYMBOLS), start, end, *told))
    return pl.DataFrame(rows, schema=GAPS, orient="row")


@st.composite
def answers(draw) -> pl.DataFrame:
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        start = floor(draw(INSTANTS), MINUTE)
        end, ended = start + draw(st.integers(1, 900)) * MINUTE, draw(st.sampled_from(Ended))
        refused = ended in (Ended.NOT_ENTITLED, Ended.UNKNOWN_SYMBOL)
        reached = start + (end - start) // 2 if ended in (Ended.LIMIT, Ended.EMPTY) else start
        told = (None if refused else floor(reached, MINUTE), ended.value, None, NOW)
        rows.append(("BINANCE", draw(SYMBOLS), start, end, *told))
    return pl.DataFrame(rows, schema=FETCHES, orient="row")


@st.composite
def official(draw) -> pl.DataFrame:
    opens = draw(st.sets(INSTANTS.map(lambda at: floor(at, MINUTE)), max_size=20))
    bars = [
        ("BINANCE", draw(SYMBOLS), at, 1.0, 1.0, 1.0, float(draw(st.integers(1, 3))), 1.0, NOW)
        for at in sorted(opens)
    ]
    return pl.DataFrame(bars, schema=HISTORY, orient="row")


@given(ledgers(), answers())
def test_when_every_question_is_answered_there_is_none_left(gaps, told):
    wanted = {"BINANCE:A": [TimeWindow(NOW - 3 * DAY, datetime.max.replace(tzinfo=UTC))]}
    asks = plan(gaps, told, wanted, NOW, reach=REACH)
    facts = [
        ("BINANCE", ask.symbol, ask.since, floor(NOW, MINUTE), ask.since, Ended.REACHED, None, NOW)
        for ask in asks
    ]
    answered = pl.concat([told, pl.DataFrame(facts, schema=FETCHES, orient="row")])

    assert len({ask.symbol for ask in asks}) == len(asks)
    assert plan(gaps, answered, wanted, NOW, reach=REACH) == []
    assert Status.OPEN not in set(
        judge(gaps, HISTORY.to_frame(), answered, NOW, reach=REACH)["status"]
    )


@given(ledgers(), official(), answers())
def test_every_second_of_a_gap_is_filled_or_lost(gaps, history, told):
    rows = judge(gaps, history, told, NOW, reach=REACH)
    blind = rows.filter(pl.col("status") != Status.NO_TRADING)
    length = (blind["end"] - blind["start"]).dt.total_microseconds() / 1e6

    assert rows.select(GAPS.names()).equals(gaps)
    assert (rows["seconds_filled"] >= 0).all()
    assert (rows["seconds_lost"] >= 0).all()
    total = blind["seconds_filled"] + blind["seconds_lost"]
    assert total.to_list() == pytest.approx(length.to_list())
    stuck = rows["status"].is_in([Status.UNFILLABLE, Status.PARTLY_FILLED])
    assert (rows["reason"].is_not_null() == stuck).all()


@given(official(), official())
def test_what_was_landed_is_no_news(known, fetched):
    fetched = fetched.unique(["symbol", "open_time"], maintain_order=True)
    news = revisions(known, fetched)
    landed = pl.concat([known.join(news, on=["symbol", "open_time"], how="anti"), news])

    assert revisions(landed, fetched).is_empty()
