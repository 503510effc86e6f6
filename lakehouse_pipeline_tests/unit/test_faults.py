"""When faults occur, and how they are written in a file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse_pipeline.errors import InputFileError
from lakehouse_pipeline.feedserver.fault_file import read_faults
from lakehouse_pipeline.feedserver.fault_kinds import BadValues, Drop, Frozen, Reorder
from lakehouse_pipeline.feedserver.faults import Ending, Fault, Link


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize(
    ("fault", "elapsed", "since"),
    [
        (Fault(), 0, 0),
        (Fault(at=seconds(5)), 4.9, None),
        (Fault(at=seconds(5)), 500, 5),
        (Fault(at=seconds(5), lasts=seconds(2)), 6.9, 5),
        (Fault(at=seconds(5), lasts=seconds(2)), 7, None),
        (Fault(at=seconds(5), lasts=seconds(2), every=seconds(10)), 26, 25),
        (Fault(at=seconds(5), lasts=seconds(2), every=seconds(10)), 28, None),
    ],
)
def test_a_fault_occurs_in_its_time(fault: Fault, elapsed: float, since: float | None) -> None:
    assert fault.since(seconds(elapsed)) == (None if since is None else seconds(since))


def test_a_drop_ends_only_what_was_open_before_it() -> None:
    drop = Drop(at=seconds(5))

    assert drop.ending(seconds(5), Link(1, seconds(4))) is Ending.DROP
    assert drop.ending(seconds(5), Link(2, seconds(6))) is None


def test_a_late_quote_comes_after_the_next_text_of_its_connection() -> None:
    late, links = Reorder(share=1.0), [Link(1, seconds(0)), Link(2, seconds(0))]
    sent = [(0, quote("a")), (1, quote("b")), (0, "~m~4~m~~h~1"), (1, quote("c"))]

    received = [late.texts(seconds(0), links[to], text) for to, text in sent]

    assert received == [[], [], ["~m~4~m~~h~1", quote("a")], [quote("c"), quote("b")]]


def quote(name: str) -> str:
    return f'~m~9~m~{{"m":"qsd","p":["qs",{{"n":"{name}"}}]}}'


def test_a_file_lists_faults_with_their_options(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(
        "- {kind: drop, at: 30s, every: 2m}\n"
        "- {kind: frozen, at: 1.5, lasts: 250ms, symbols: [BINANCE:BTCUSDT]}\n"
        "- {kind: bad_values, fields: [lp], value: 1.0e+100, share: 0.05}\n"
    )

    assert read_faults(path) == [
        Drop(at=seconds(30), every=seconds(120)),
        Frozen(at=seconds(1.5), lasts=seconds(0.25), symbols=["BINANCE:BTCUSDT"]),
        BadValues(fields=["lp"], value=1e100, share=0.05),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- kind: quake", "fault kind 'quake' is unknown"),
        ("- {kind: drop, at: 5s, hard: yes}", "drop has no option 'hard'"),
        ("- {kind: drop, at: soon}", "'soon' is no time"),
        ("- {kind: frozen}", "symbols"),
        ("kind: drop", "holds no list of faults"),
        ("- {", "cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)

    with pytest.raises(InputFileError, match=problem):
        read_faults(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        read_faults(tmp_path / "none.yaml")
