"""The studies this feed can compute: RSI, MACD and Volume, from its own official bars.

Written as plain loops and apart from the project's own indicators, so that each can be the other's
check. Add a study as an entry of `STUDIES` (its plots in wire order) and a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .history import Bar

Points = list[list[float | None]]
"""One list for each bar, holding one value for each plot."""


@dataclass(frozen=True, slots=True)
class Input:
    """*name* is how built-in studies call it; Pine ones number theirs ``in_0`` and so on."""

    name: str
    title: str
    type: str
    default: Any  # int, str or bool, as *type* says


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    colors: int | None = None  # the plot whose color it gives, for plots that are colors


@dataclass(frozen=True, slots=True)
class Study:
    description: str
    inputs: tuple[Input, ...]
    plots: tuple[Plot, ...]
    compute: Callable[[Sequence[Bar], Mapping[str, Any]], Points]

    def points(self, bars: Sequence[Bar], given: Mapping[str, Any]) -> Points:
        """Return the values of every plot at every bar; *given* are the client's inputs."""
        values = {}
        for number, one in enumerate(self.inputs):
            value = given.get(f"in_{number}", given.get(one.name, one.default))
            values[one.name] = value["v"] if isinstance(value, dict) else value
        return self.compute(bars, values)


def find_study(name: str, inputs: Mapping[str, Any]) -> tuple[str, Study] | None:
    """Return the study a ``create_study`` means and its id; None when it is not computed here."""
    if name.startswith(("Script@", "StrategyScript@")):
        key = str(inputs.get("pineId", ""))
    else:
        key = name.partition("@")[0]
    return (key, STUDIES[key]) if key in STUDIES else None


def is_pine(study_id: str) -> bool:
    return ";" in study_id


def _rsi(bars: Sequence[Bar], inputs: Mapping[str, Any]) -> Points:
    length = int(inputs["length"])
    values: list[float | None] = [None] * len(bars)
    gain = loss = 0.0
    for i in range(1, len(bars)):
        change = bars[i].close - bars[i - 1].close
        up, down = max(change, 0.0), max(-change, 0.0)
        if i <= length:  # Wilder's average starts as a plain one
            gain += up / length
            loss += down / length
        else:
            gain += (up - gain) / length
            loss += (down - loss) / length
        if i >= length:
            values[i] = 100.0 if loss == 0.0 else 100.0 - 100.0 / (1.0 + gain / loss)
    return [list(pair) for pair in zip(values, _sma(values, 14), strict=True)]


def _macd(bars: Sequence[Bar], inputs: Mapping[str, Any]) -> Points:
    closes: list[float | None] = [bar.close for bar in bars]
    fast = _ema(closes, int(inputs["fast"]))
    slow = _ema(closes, int(inputs["slow"]))
    line = [
        None if quick is None or calm is None else quick - calm
        for quick, calm in zip(fast, slow, strict=True)
    ]
    signal = _ema(line, int(inputs["signal"]))
    points: Points = []
    for i, (value, smooth) in enumerate(zip(line, signal, strict=True)):
        histogram = None if value is None or smooth is None else value - smooth
        before = points[i - 1][0] if i else None
        rising = histogram is not None and before is not None and histogram > before
        color = None if histogram is None else (0.0 if rising else 1.0) + (2.0 * (histogram < 0))
        points.append([histogram, color, value, smooth])
    return points


def _volume(bars: Sequence[Bar], inputs: Mapping[str, Any]) -> Points:
    volumes: list[float | None] = [bar.volume for bar in bars]
    average = _sma(volumes, int(inputs["length"]))
    return [list(pair) for pair in zip(volumes, average, strict=True)]


def _ema(values: Sequence[float | None], length: int) -> list[float | None]:
    """Return the exponential average, started with the plain average of *length* values."""
    result: list[float | None] = []
    seed: list[float] = []
    average: float | None = None
    for value in values:
        if value is None:
            result.append(None)
            continue
        if average is None:
            seed.append(value)
            average = sum(seed) / length if len(seed) == length else None
        else:
            average += (value - average) * 2.0 / (length + 1)
        result.append(average)
    return result


def _sma(values: Sequence[float | None], length: int) -> list[float | None]:
    result: list[float | None] = []
    window: list[float] = []
    for value in values:
        if value is not None:
            window = [*window[-(length - 1) :], value] if length > 1 else [value]
        full = value is not None and len(window) == length
        result.append(sum(window) / length if full else None)
    return result


_RSI = Study(
    "Relative Strength Index",
    (Input("length", "RSI Length", "integer", 14), Input("source", "Source", "source", "close")),
    (Plot("RSI"), Plot("RSI-based MA")),
    _rsi,
)
_MACD = Study(
    "Moving Average Convergence Divergence",
    (
        Input("fast", "Fast Length", "integer", 12),
        Input("slow", "Slow Length", "integer", 26),
        Input("source", "Source", "source", "close"),
        Input("signal", "Signal Smoothing", "integer", 9),
        Input("ma_source", "Oscillator MA Type", "text", "EMA"),
        Input("ma_signal", "Signal Line MA Type", "text", "EMA"),
    ),
    (Plot("Histogram"), Plot("Histogram color", colors=0), Plot("MACD"), Plot("Signal")),
    _macd,
)
STUDIES: dict[str, Study] = {
    "STD;RSI": _RSI,
    "RSI": _RSI,
    "STD;MACD": _MACD,
    "MACD": _MACD,
    "Volume": Study(
        "Volume",
        (Input("length", "MA Length", "integer", 20),),
        (Plot("Volume"), Plot("Volume MA")),
        _volume,
    ),
}
