"""The short way of an update's text, and what it leaves to the long one."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse_pipeline.ingest.credible import Credible
from lakehouse_pipeline.tradingview.express import LONGEST, ExpressReader
from lakehouse_pipeline.tradingview.frames import encode

READER = ExpressReader("qs_1", Credible)


def text(values: str, *, session: str = "qs_1", name: str = "X:A", tail: str = "}]}") -> str:
    return encode(f'{{"m":"qsd","p":["{session}",{{"n":"{name}","s":"ok","v":{values}{tail}')


def test_a_usual_update_is_its_name_and_values():
    assert READER.read(text('{"lp":1.5,"lp_time":17}')) == ("X:A", {"lp": 1.5, "lp_time": 17})


def test_fields_nobody_keeps_are_left_out():
    assert READER.read(text('{"bid":1,"rtc":null,"logoid":"A"}')) == ("X:A", {"bid": 1.0})


@pytest.mark.parametrize(
    "other",
    [
        "",
        "~h~1",
        encode("~h~1"),
        text('{"lp":1.5}') + encode("~h~1"),
        text('{"lp":1.5}', session="qs_2"),
        text('{"lp":1.5}', name='X:\\"A'),
        text('{"lp":1.5}', tail="}]} "),
        text('{"lp":1.5}', tail=',"errmsg":"x"}]}'),
        text('{"lp":1.5', tail="}}}"),
        text('{"lp":1.5}').replace("~m~6", "~m~7"),
        text('{"lp":1.5}').replace('"ok"', '"error"'),
        text('{"lp":1e+100}'),
        text('{"lp":-1}'),
        text('{"lp":0}'),
        text('{"volume":-0.5}'),
        text('{"volume":null}'),
        text('{"lp":"1"}'),
        text('{"lp_time":1.5}'),
        text('{"lp":1.5}' + " " * LONGEST),
    ],
)
def test_whatever_else_it_is_goes_the_long_way(other: Any):
    assert READER.read(other) is None
