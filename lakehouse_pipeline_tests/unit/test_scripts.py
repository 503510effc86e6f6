"""A study's description becomes a request, and names for its values."""

from __future__ import annotations

import asyncio
import http.server
import json
import math

import pytest
import structlog

from lakehouse_pipeline.errors import ProtocolFault, StudyError
from lakehouse_pipeline.ingest.scripts import StudyScripts, askable, asked_study, bars_for
from lakehouse_pipeline.market.indicators import macd, rsi
from lakehouse_pipeline.settings import FeedSettings
from lakehouse_pipeline.tradingview.scripts import parse_script
from lakehouse_pipeline_tests.integration.feed.identity import serving


def described(**changed: object) -> bytes:
    """Return an answer shaped as the feed's for MACD, its plots in an order of their own."""
    meta = {
        "id": "Script$STD;MACD@tv-scripting-101!",
        "scriptIdPart": "STD;MACD",
        "pine": {"digest": "", "version": "37.0"},
        "inputs": [
            {"id": "text", "name": "ILScript", "type": "text", "defval": "old", "isFake": True},
            {"id": "pineId", "name": "pineId", "type": "text", "defval": "STD;MACD"},
            {"id": "pineVersion", "name": "pineVersion", "type": "text", "defval": "37.0"},
            {"id": "in_7", "name": "Slow Length", "type": "integer", "defval": 26, "isFake": True},
            {"id": "in_2", "name": "Fast Length", "type": "integer", "defval": 12, "isFake": True},
            {"id": "in_5", "name": "Signal Length", "type": "integer", "defval": 9},
            {"id": "in_6", "name": "Color", "type": "color", "defval": "#80DEEA", "isFake": True},
        ],
        "plots": [
            {"id": "plot_3", "type": "line"},
            {"id": "plot_0", "type": "line"},
            {"id": "plot_1", "type": "colorer", "target": "plot_0"},
            {"id": "plot_9", "type": "line"},
            {"id": "plot_4", "type": "shapes"},
        ],
        "styles": {
            "plot_0": {"title": "Histogram", "plottype": 5},
            "plot_3": {"title": "Signal"},
            "plot_9": {"title": "Signal"},
        },
    }
    result = {"IL": "…", "ilTemplate": "encrypted", "metaInfo": meta | changed}
    return json.dumps({"success": True, "result": result}).encode()


def test_plots_are_named_by_their_titles_wherever_they_stand():
    script = parse_script(described())

    assert script.plots == ("signal", "histogram", None, "signal (plot_9)", None)


def test_a_plot_without_a_title_keeps_its_id():
    script = parse_script(described(styles={}))

    assert script.plots[:2] == ("plot_3", "plot_0")


def test_parameters_find_their_inputs_by_title():
    asked = asked_study(macd(fast=5, slow=8), parse_script(described()))

    assert asked.label == "fast=5,slow=8,signal=9"
    assert asked.inputs == {
        "text": "encrypted",
        "pineId": "STD;MACD",
        "pineVersion": "37.0",
        "in_7": {"v": 8, "f": True, "t": "integer"},
        "in_2": {"v": 5, "f": True, "t": "integer"},
        "in_5": {"v": 9, "f": False, "t": "integer"},
        # Colors are numbers to the feed.
        "in_6": {"v": 6, "f": True, "t": "color"},
    }


def test_a_script_without_an_input_for_a_parameter_is_not_asked_for():
    with pytest.raises(StudyError, match="no input for length"):
        asked_study(rsi(), parse_script(described(inputs=[])))


@pytest.mark.parametrize(
    "parameters", [{"length": 0}, {"length": 2.5}, {"length": math.nan}, {"width": 5}]
)
def test_a_study_that_cannot_be_is_left_out_and_it_is_said_why(parameters):
    studies, impossible = askable({"rsi": parameters, "macd": {}, "sma": {}})

    assert [study.name for study in studies] == ["macd"]
    assert impossible.keys() == {"rsi"}
    assert impossible["rsi"].startswith("Indicator rsi")


def test_a_whole_number_is_the_same_however_it_was_written():
    ((study,), _) = askable({"rsi": {"length": 14.0}})

    assert study.label == "length=14"


@pytest.mark.parametrize(
    "indicators",
    [{}, {"rsi": {}, "macd": {}}, {"rsi": {"length": 50}}, {"macd": {"slow": 100}, "rsi": {}}],
)
def test_charts_are_longer_than_any_study_remembers(indicators):
    studies, _ = askable(indicators)

    assert all(bars_for(studies) >= study.memory + 60 for study in studies)


def test_charts_are_no_longer_than_the_feed_gives():
    assert bars_for(askable({"rsi": {"length": 1000}})[0]) == 5000


def test_a_description_that_breaks_its_reader_ends_nothing(eventually):
    """Nested too deeply for the interpreter: no error of the feed's, and none of the recording."""
    deep = b"[" * 100_000 + b"]" * 100_000

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = described().replace(b'"defval": 26', b'"defval": ' + deep)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer if "RSI" in self.path else described())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    async def allowed() -> None:
        """At once."""

    async def scenario(page: str) -> StudyScripts:
        feed = FeedSettings(http_url=page)
        scripts = StudyScripts(feed, {"rsi": {}, "macd": {}}, allowed=allowed)
        running = asyncio.create_task(scripts.run())
        await eventually(lambda: scripts.ready or running.done())
        assert not running.done()
        running.cancel()
        return scripts

    with structlog.testing.capture_logs() as logs, serving(Page) as page:
        scripts = asyncio.run(scenario(page))

    assert [study.name for study in scripts.ready] == ["macd"]
    assert [(entry["event"], entry["study"]) for entry in logs] == [("study_dropped", "rsi")]
    ((reason, text),) = scripts.news()
    assert (reason, text.partition(":")[0]) == ("study_dropped", "rsi")
    assert scripts.news() == []  # it was told
    assert scripts.troubles.keys() == {"rsi"}


def test_a_refused_description_says_why():
    with pytest.raises(StudyError, match="no such script"):
        parse_script(b'{"success": false, "reason": "no such script"}')


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"success": true, "result": {}}'])
def test_an_answer_that_is_none_is_the_feeds_fault(answer: bytes):
    with pytest.raises(ProtocolFault):
        parse_script(answer)
