"""A symbol's line merges partial updates: each row holds the last word on each key."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from lakehouse_pipeline.ingest.line import Line
from lakehouse_pipeline.ingest.rows import QUOTES, TARGETS
from lakehouse_pipeline.market.quotes import COLUMNS

ROW = TARGETS[QUOTES].columns
values = st.none() | st.floats(0.01, 1e6)
updates = st.dictionaries(st.sampled_from([*COLUMNS]), values, max_size=4)


@given(st.lists(updates, min_size=1, max_size=8))
@example([{"lp": 1.0, "volume": 5.0}, {"lp": 2.0, "volume": None}])  # None takes a value away
@example([{"lp": 1.0, "prev_close_price": 3.0}, {"prev_close_price": 3.0}])  # sent again: no reset
def test_each_row_is_the_last_word_on_each_key(script):
    line = Line("X:A", "s")
    line.restoring = False

    rows = [dict(zip(ROW, line.merge(one, at), strict=True)) for at, one in enumerate(script)]

    for at, row in enumerate(rows):
        said: dict[str, float | None] = {}
        for one in script[: at + 1]:
            said |= one
        assert {key: row[column] for key, column in COLUMNS.items()} == {
            **dict.fromkeys(COLUMNS),
            **said,
        }
        assert set(row["changed"].split(",")) - {""} == {COLUMNS[key] for key in script[at]}
        assert (row["symbol"], row["session_id"], row["received_at"]) == ("X:A", "s", at)
