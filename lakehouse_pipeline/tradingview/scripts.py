"""What a study is, as the feed's HTTP side describes it: its script, inputs and plots.

Pure: ``web`` fetches the description. Plots are named by their titles, never by their positions,
which change from version to version of a script; colors among them are no values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lakehouse_pipeline.errors import ProtocolFault, StudyError

RUNNER = "Script@tv-scripting-101!"  # what create_study runs, the script being one of its inputs

Value = int | float | str | bool


class ScriptInput(msgspec.Struct, frozen=True, rename={"is_fake": "isFake", "default": "defval"}):
    """One input; *name* is its title."""

    id: str
    name: str = ""
    type: str = ""
    default: Any = None  # a number, text or flag, as *type* says
    is_fake: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A study that can be asked for; *plots* has a name for each value, None where it is none."""

    pine_id: str
    version: str
    text: str
    inputs: tuple[ScriptInput, ...]
    plots: tuple[str | None, ...]

    def input_id(self, names: Collection[str]) -> str | None:
        """Return the id of the input titled with one of *names* (lower case), or None."""
        return next((one.id for one in self.inputs if one.name.lower() in names), None)

    def request(self, given: Mapping[str, Value]) -> dict[str, Value | dict[str, Value]]:
        """Return the inputs for ``create_study``: *given* by input id, the others' defaults.

        The script itself is plain text, every other input an object.
        """
        inputs: dict[str, Value | dict[str, Value]] = {
            "text": self.text,
            "pineId": self.pine_id,
            "pineVersion": self.version,
        }
        for number, one in enumerate(self.inputs):
            if one.id not in inputs:
                value = given.get(one.id, _default(number, one))
                inputs[one.id] = {"v": value, "f": one.is_fake, "t": one.type}
        return inputs


def parse_script(document: bytes) -> Script:
    """Return the script that an answer of ``/pine-facade/translate`` describes.

    Raises:
        StudyError: the feed does not know it or will not tell.
        ProtocolFault: the answer is none.
    """
    try:
        answer = _ANSWER.decode(document)
    except msgspec.MsgspecError as error:
        raise ProtocolFault(f"A study's description is malformed: {error}.") from error
    if not answer.success or answer.result is None:
        raise StudyError(f"The feed does not describe the study: {answer.reason or 'no reason'}.")
    meta = answer.result.meta
    defaults = {one.id: one.default for one in meta.inputs}
    return Script(
        pine_id=meta.script_id,
        version=meta.pine.version,
        text=answer.result.template or str(defaults.get("text", "")),
        inputs=tuple(meta.inputs),
        plots=_plot_names(meta),
    )


class _Plot(msgspec.Struct):
    id: str
    type: str = ""


class _Style(msgspec.Struct):
    title: str = ""


class _Pine(msgspec.Struct):
    version: str = ""


class _Meta(msgspec.Struct, rename={"script_id": "scriptIdPart"}):
    script_id: str
    pine: _Pine
    inputs: list[ScriptInput]
    plots: list[_Plot]
    styles: dict[str, _Style] = {}


class _Result(msgspec.Struct, rename={"template": "ilTemplate", "meta": "metaInfo"}):
    meta: _Meta
    template: str = ""


class _Answer(msgspec.Struct):
    success: bool
    result: _Result | None = None
    reason: str = ""


_ANSWER = msgspec.json.Decoder(_Answer)


def _plot_names(meta: _Meta) -> tuple[str | None, ...]:
    names: list[str | None] = []
    for plot in meta.plots:
        title = meta.styles.get(plot.id, _Style()).title.lower() or plot.id
        name = title if title not in names else f"{title} ({plot.id})"
        names.append(name if plot.type == "line" else None)
    return tuple(names)


def _default(number: int, one: ScriptInput) -> Value:
    # The feed's own parser takes colors as numbers only; which one does not matter here.
    value: Value = number if one.type == "color" else one.default
    return value
