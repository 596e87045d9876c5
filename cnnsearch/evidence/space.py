"""What a search ranges over and what it is after: its axes and objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cnnsearch.spec.arguments import plain_value
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.metric import MEASURES
from cnnsearch.spec.values import NUMERIC_KINDS, Values
from cnnsearch.words import duration, size

_LOG_RATIO = 30  # largest over smallest: listed numbers beyond it are laid out on a log scale


class Objective(NamedTuple):
    """A quantity that a search makes as large, or as small, as it can."""

    column: str
    is_larger_better: bool
    label: str

    def text(self, value: float) -> str:
        """A value of the objective as people read it."""
        if self.column in MEASURES:
            return MEASURES[self.column].text(value)
        if self.column == "seconds":
            return duration(value)
        if self.column == "model_bytes":
            return size(value) if value >= 1e6 else f"{value / 1e3:.0f} kB"
        return f"{value:,.0f}" if self.column == "parameters" else f"{value:.3f}"

    def is_better(self, a: float, b: float) -> bool:
        """Whether a is better than b."""
        return a > b if self.is_larger_better else a < b


OBJECTIVES = {
    **{
        name: Objective(name, metric.is_larger_better, f"validation {metric.words}")
        for name, metric in MEASURES.items()
    },
    "seconds": Objective("seconds", False, "training time"),
    "parameters": Objective("parameters", False, "trainable parameters"),
    "bytes": Objective("model_bytes", False, "size of the model"),
}
"""Name in a sweep -> objective."""


@dataclass(frozen=True)
class Axis:
    """An axis as it was searched: a range, or listed values."""

    name: str
    kind: str
    """Its key in the sweep: uniform, loguniform, int, grid or choice."""
    low: float
    high: float
    is_log: bool
    listed: tuple[Value, ...]
    """The values of a list, numbers ascending; empty for a range."""
    when: Mapping[str, tuple[Value, ...]]
    """Another axis -> its values with which this axis applies to a trial."""

    @property
    def is_range(self) -> bool:
        """Whether the axis is a range of numbers, not a list of values."""
        return not self.listed

    @property
    def is_ordered(self) -> bool:
        """Whether the values of the axis are numbers."""
        return self.is_range or all(_is_number(value) for value in self.listed)

    def position(self, value: Value) -> float | None:
        """Position of a value along the axis, from 0 to 1; listed values are evenly spaced. None for other values."""
        if self.listed:
            places = [i for i, known in enumerate(self.listed) if known == value]
            return places[0] / max(1, len(self.listed) - 1) if places else None
        if not _is_number(value):
            return None
        number = float(value)  # type: ignore[arg-type]
        if not self.low <= number <= self.high:
            return None
        if self.is_log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def value_at(self, position: float) -> float:
        """The number at a position from 0 (low end) to 1 (high end) of a range."""
        if self.is_log:
            return float(self.low * (self.high / self.low) ** position)
        return self.low + position * (self.high - self.low)


def axis_of(name: str, values: Values) -> Axis | None:
    """Make the axis of these values; None if there is only one value, even if not all trials have it."""
    args = [plain_value(value) for value in values.args]
    if values.kind in NUMERIC_KINDS:
        low, high = map(float, args)
        return Axis(name, values.kind, low, high, values.kind == "loguniform", (), values.when)
    if len(args) < 2:
        return None
    numbers = all(map(_is_number, args))
    args = sorted(args) if numbers else args
    low, high = (float(args[0]), float(args[-1])) if numbers else (0.0, 0.0)
    is_log = numbers and low > 0 and high / low > _LOG_RATIO
    return Axis(name, values.kind, low, high, is_log, tuple(args), values.when)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
