"""Write docs/reference from the code; ``make docs`` runs it.

Each page is a pure function of what it describes, so that a test can tell a stale one.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from lakehouse_pipeline.cli import app
from lakehouse_pipeline.lake.tables import SNAPSHOTS_KEPT, TABLES, Partition, TableSpec
from lakehouse_pipeline.market.bars import Source, State
from lakehouse_pipeline.market.causes import Cause
from lakehouse_pipeline.market.coverage import Ending, Mark
from lakehouse_pipeline.market.indicators import STUDIES, Start
from lakehouse_pipeline.market.quality import Flag
from lakehouse_pipeline.market.quotes import Kind
from lakehouse_pipeline.market.reconcile import Agreement
from lakehouse_pipeline.market.repair import Ended, Reason, Status
from lakehouse_pipeline.market.volume import Basis, CounterKind
from lakehouse_pipeline.settings import ExchangeSettings, Settings

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
GENERATED = "<!-- Written by `make docs` from the code; edits are lost. -->\n"
# Which columns hold which words.
WORDS: tuple[tuple[str, type[Enum]], ...] = (
    ("`raw.quotes`: `kind`", Kind),
    ("`raw.coverage`: `kind`", Mark),
    ("`raw.coverage`: `reason` of `ended`", Ending),
    ("`raw.fetches`: `ended`", Ended),
    ("bars: `volume_basis`", Basis),
    ("bars: `state`", State),
    ("bars: `source`", Source),
    ("bars and indicators: `flags`", Flag),
    ("`market.gaps`: `cause`", Cause),
    ("`market.reconciliation`: `status` of a day", Agreement),
    ("`market.reconciliation`: `status` of a gap", Status),
    ("`market.reconciliation`: `reason`", Reason),
    ("`market.symbols`: `counter_kind`", CounterKind),
)


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        "tables.md": tables(),
        "indicators.md": indicators(),
        "settings.md": settings(),
        "cli.md": commands(),
    }


def tables() -> str:
    return "\n".join(
        [
            *(GENERATED, "# Tables\n"),
            "Iceberg format version 2, Parquet with zstd; times are UTC with microseconds.",
            "Rows are never deleted by age.",
            f"Each table keeps {SNAPSHOTS_KEPT} to {SNAPSHOTS_KEPT + 10} snapshots, tags besides.",
            "Columns marked * are never null.\n",
            *(line for spec in TABLES.values() for line in _table(spec)),
            "## Words\n",
            "What columns with a fixed vocabulary hold.\n",
            *(line for title, words in WORDS for line in _words(title, words)),
        ]
    )


def _table(spec: TableSpec) -> Iterator[str]:
    yield f"## {spec.name}\n"
    yield f"{spec.doc}.\n"
    yield f"* Partitioned by {_partitions(spec.sealed)}"
    if spec.hot is not None:
        yield f"* New rows land by {_partitions(spec.hot)}, until they are sealed"
    yield f"* Sorted by {', '.join(f'`{name}`' for name in spec.order)}"
    if spec.tagged_days:
        yield f"* The newest {spec.tagged_days} daily tags can be travelled to"
    yield ""
    rows = (
        (f"`{name}`{' *' if name in spec.required else ''}", kind, doc)
        for name, kind, doc in spec.columns
    )
    yield from _grid(("column", "type", "what it is"), rows)


def _partitions(partitions: tuple[Partition, ...]) -> str:
    return ", ".join(
        f"`{name}`" if str(by) == "identity" else f"{by}(`{name}`)" for name, by in partitions
    )


def _words(title: str, words: type[Enum]) -> Iterator[str]:
    yield f"### {title}\n"
    yield f"{_prose(words)}\n"
    source = inspect.getsource(words)
    said = dict(re.findall(r"^    ([A-Z_0-9]+) = [^#\n]+?(?:  # (.+))?$", source, re.MULTILINE))
    rows = ((f"`{word.value}`", *_name(word), said[word.name]) for word in words)
    named = issubclass(words, int)
    yield from _grid(("value", *(("name",) if named else ()), "meaning"), rows)


def _name(word: Enum) -> tuple[str, ...]:
    return (word.name,) if isinstance(word, int) else ()


def indicators() -> str:
    studies = {name: make() for name, make in STUDIES.items()}
    stored = " and ".join(f"`{name}`" for name in Settings.model_fields["indicators"].get_default())
    return "\n".join(
        [
            *(GENERATED, "# Indicators\n"),
            "Each is computed from our own bars, at any interval:",
            "`lakehouse bars SYMBOL --with rsi,macd`, the same with `lakehouse chart`, and",
            '`open_lakehouse().bars(SYMBOL, "5m", indicators=["rsi", "macd"])` in Python.',
            f"{stored} of 1-minute bars are also stored, in `market.indicators_1m`;",
            "which, and with what parameters, is the section `indicators` of `exchanges.yaml`.\n",
            "A name alone has the parameters of `exchanges.yaml`, or else the usual ones below.",
            "Others are written after colons, in the order of the table:",
            "`rsi:7`, `macd:5:10:3`, `bollinger:20:2.5`. Their columns end in them: `rsi_7`,",
            "`macd_5_10_3`, `signal_5_10_3`, `histogram_5_10_3`.\n",
            *_grid(
                ("name", "parameters, usual", "written", "columns", "in", "what it is"),
                (
                    (
                        f"`{name}`",
                        ", ".join(f"`{p}={v}`" for p, v in study.parameters.items()),
                        f"`{':'.join((name, *map(str, study.parameters.values())))}`",
                        ", ".join(f"`{column}`" for column in study.columns),
                        study.unit.value,
                        _first_sentence(STUDIES[name]),
                    )
                    for name, study in studies.items()
                ),
            ),
            "## Warm-up\n",
            "An indicator starts at the first bar, and again after each gap that official minutes",
            "have not filled. It is null until it is warm, and for some time its value still shows",
            "where it began: `flags` then say `WARMING` or `SETTLING`, stored and on read.",
            "On read, enough bars before the time asked for are read, so that its start does not",
            "show. `--carry` goes on across gaps.\n",
            *_grid(
                ("name", "first value at bar", "settled from bar", "starts"),
                (
                    (
                        f"`{name}`",
                        str(study.warm_up),
                        "never" if study.start is Start.STRETCH else str(study.memory),
                        "at 00:00 UTC" if study.start is Start.DAY else "after a gap",
                    )
                    for name, study in studies.items()
                ),
            ),
            "Of a study with several lines the first bar is that of the last line.",
            "With parameters of its own a study warms up accordingly: `rsi:7` has its first value",
            f"at bar {STUDIES['rsi'](length=7).warm_up}.",
            "",
        ]
    )


def _first_sentence(described: Callable[..., object]) -> str:
    """Return what a function says it returns."""
    said = " ".join((described.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    return said.removeprefix("Return ")


def settings() -> str:
    lines = [
        *(GENERATED, "# Settings\n"),
        "Precedence: arguments > environment > `.env` > `exchanges.yaml` > defaults.",
        "A section of the file is a mapping by the same names: `feed: {url: …}`.",
        "Lengths of time are seconds, or ISO 8601 such as `PT6H`.",
        "Mappings and lists in the environment are JSON.",
        "A secret belongs in the environment or in `.env`, which git ignores.\n",
    ]
    fields = Settings.model_fields
    plain = {name: field for name, field in fields.items() if not _is_section(field)}
    lines += _settings("LAKEHOUSE_", plain)
    for name, field in fields.items():
        if _is_section(field):
            section: type[BaseModel] = field.annotation  # type: ignore[assignment]  # just checked
            lines += [f"## {name}\n", f"{_prose(section)}\n"]
            lines += _settings(f"LAKEHOUSE_{name.upper()}__", section.model_fields)
    lines += ["## exchanges\n", "Of each exchange, by its name as TradingView writes it:\n"]
    symbols = ExchangeSettings.model_fields["symbols"]
    lines += _grid(("name", "holds", "what it is"), [("`symbols`", "list", symbols.description)])
    return "\n".join(lines)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _settings(prefix: str, fields: dict[str, FieldInfo]) -> Iterator[str]:
    rows = (
        (f"`{prefix}{name.upper()}`", _holds(field.annotation), _shown(field), field.description)
        for name, field in fields.items()
    )
    return _grid(("variable", "holds", "default", "what it is"), rows)


def _holds(annotation: Any) -> str:  # Any: a type or a typing form
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, types.UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not types.NoneType)
    names = {
        str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path",
        SecretStr: "secret", timedelta: "time", dict: "mapping", list: "list",
    }  # fmt: skip
    return names[get_origin(annotation) or annotation]


def _shown(field: FieldInfo) -> str:
    default = field.get_default()
    match default:
        case None | "":
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case timedelta():
            return f"`{default.total_seconds():g}` s"
        case dict():
            return f"`{json.dumps(default)}`" if default else ""
    return f"`{default}`"


def commands() -> str:
    group = typer.main.get_command(app)
    lines = [
        *(GENERATED, "# Command line\n"),
        "Exit code 2 is a mistake in what was asked, 1 is the machine or a service.",
        "The reason is one line on standard error.",
        "Times are UTC where they name no zone.\n",
        *_commands("lakehouse", group),
    ]
    return "\n".join(lines)


def _commands(name: str, command: Any) -> Iterator[str]:  # Any: typer's own copy of click's types
    if hasattr(command, "commands"):
        for part, inner in command.commands.items():
            yield from _commands(f"{name} {part}", inner)
        return
    yield f"## {name}\n"
    yield f"{' '.join(inspect.cleandoc(command.help).split())}\n"
    rows = [
        (f"`{_spelled(parameter)}`", _default(parameter), parameter.help)
        for parameter in command.params
    ]
    if rows:
        yield from _grid(("argument", "default", "what it is"), rows)


def _spelled(parameter: Any) -> str:  # Any: as above
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return "/".join((*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:  # Any: as above
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or default == [] or callable(default):
        return ""
    if default is True:
        return "on"
    return f"`{default.value if isinstance(default, Enum) else default}`"


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str | None, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"
    yield ""


def _prose(described: type) -> str:
    return (described.__doc__ or "").strip().replace("``", "`")


def _cell(text: str | None) -> str:
    return (text or "").replace("|", r"\|")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
