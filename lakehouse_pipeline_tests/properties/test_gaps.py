"""Gaps are what is wanted and not covered, whatever window is asked for."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.market.coverage import covered, wanted
from lakehouse_pipeline.market.gaps import find_gaps
from lakehouse_pipeline.market.windows import SECOND, TimeWindow, intersect, union
from lakehouse_pipeline_tests.generated import Recording, recordings


def ledger(recording: Recording, within: TimeWindow) -> pl.DataFrame:
    script = recording.script
    watermark = script.time(recording.now - 5)
    return find_gaps(script.quotes, script.coverage, within, watermark, since=recording.span.start)


@given(recordings())
def test_gaps_and_coverage_make_up_what_was_wanted(recording: Recording):
    script = recording.script
    known = TimeWindow(recording.span.start, script.time(recording.now - 5))
    gaps = ledger(recording, recording.span)
    blind = [TimeWindow(*edges) for edges in gaps.select("start", "end").iter_rows()]
    seen = covered(script.coverage, recording.symbol, known)

    due = intersect(wanted(script.coverage)[recording.symbol], [known])
    assert union(blind + seen) == due
    assert intersect(blind, seen) == []


@given(recordings(), st.integers(-10, 130))
def test_the_ledger_of_the_parts_is_that_of_the_whole_but_for_the_cut(
    recording: Recording, seconds: int
):
    span = recording.span
    cut = recording.script.start + seconds * SECOND
    parts = [ledger(recording, TimeWindow(*e)) for e in ((span.start, cut), (cut, span.end))]
    edges = ["symbol", "gap_id"]

    joined = pl.concat(parts).group_by(edges).agg(pl.col("start").min(), pl.col("end").max())
    whole = ledger(recording, span).group_by(edges)
    whole = whole.agg(pl.col("start").min(), pl.col("end").max())

    assert joined.sort("start").equals(whole.sort("start"))


@given(recordings(), st.randoms(use_true_random=False))
def test_order_and_repeats_of_the_marks_change_nothing(recording: Recording, random):
    expected = ledger(recording, recording.span)
    script = recording.script
    script.marks += [random.choice(script.marks) for _ in script.marks]
    script.rows += [random.choice(script.rows) for _ in script.rows]
    random.shuffle(script.marks)
    random.shuffle(script.rows)

    assert ledger(recording, recording.span).equals(expected)
