"""A search space of another tool, in a form that all of them have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Param:
    """One thing that is varied, or set."""

    name: str
    """As the other tool calls it."""
    kind: Literal["constant", "listed", "uniform", "loguniform", "int", "logint"]
    args: Sequence[Any]
    """The value, the values, or the two ends of a range, both of which it may take."""
    step: float | None = None
    """Distance of two values of a range; None where it may take any."""
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Other parameters -> values under which this one is used."""


@dataclass(frozen=True)
class Lost:
    """Something that has no match in a sweep file."""

    what: str
    """As it stands there, in short."""
    why: str


@dataclass
class Space:
    """All that a file of another tool says of a search."""

    tool: str
    name: str = ""
    question: str = ""
    method: str = ""
    """grid, random or one of our searchers; empty where it is not said."""
    trials: int | None = None
    metric: str = ""
    goal: Literal["", "more", "less"] = ""
    rule: str = ""
    """asha, hyperband or median; empty without any."""
    rule_settings: dict[str, int] = field(default_factory=dict)
    """min_epochs and reduction_factor, as far as they are said."""
    params: list[Param] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def lose(self, what: str, why: str) -> None:
        """Note something that has no match."""
        self.lost.append(Lost(what, why))
