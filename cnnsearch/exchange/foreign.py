"""Trials that another tool ran: as its reader found them, and as a report takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnsearch.spec.axis_words import Value, format_value

TRIAL, STATUS = "trial", "status"
"""Columns that every reader makes: a name for each row, and one of `State`."""
MOST_ROWS = 1_000_000
"""Most trials of one source."""
MOST_COLUMNS = 2_000


class State(StrEnum):
    """How a trial ended."""

    DONE = "done"
    FAILED = "failed"
    PRUNED = "pruned"
    RUNNING = "running"


@dataclass(frozen=True)
class Raw:
    """What a reader found: a row for each trial, and as much as the tool says of its columns."""

    source: str
    """What was read, as people typed it."""
    tool: str
    """Whose it is, such as Optuna."""
    frame: pd.DataFrame
    """Has the columns `TRIAL` and `STATUS`, and others by their names."""
    params: Sequence[str] | None = None
    """The columns that are settings; None where the tool does not tell."""
    scores: Mapping[str, bool | None] = field(default_factory=dict)
    """The columns that were optimized -> whether more is better; None where the tool does not tell."""
    stage: str | None = None
    """The column that says to which of several searches a trial belongs."""
    measured: str = ""
    """Which of a trial's numbers these are, in words: empty where there is one."""


@dataclass(frozen=True)
class ForeignTrial:
    """One trial."""

    id: str
    stage: str
    values: Mapping[str, Value]
    """Axis -> value; None where the trial has none."""
    seed: Value
    state: State
    chosen_by: float | None
    """The score by which settings are chosen; None where it was not measured."""
    judged_by: float | None
    """The score by which they are compared."""


@dataclass(frozen=True)
class Roles:
    """Which column is what."""

    score: str
    """By which settings are chosen."""
    judged: str
    """By which they are compared: the same, or that of the test set."""
    is_larger_better: bool
    seed: str | None
    stage: str | None
    axes: tuple[str, ...]
    """Settings that vary."""
    fixed: Mapping[str, Value]
    """Settings with one value."""
    left_out: tuple[str, ...]
    """All other columns."""


@dataclass(frozen=True)
class Foreign:
    """Trials of another tool, ready to be judged."""

    raw: Raw
    roles: Roles
    trials: tuple[ForeignTrial, ...]

    @property
    def is_share(self) -> bool:
        """Whether people read the score in percent: it lies from 0 to 1, and is not called an error or a loss."""
        known = [one.judged_by for one in self.trials if one.judged_by is not None]
        return self.roles.is_larger_better and bool(known) and min(known) >= 0 and max(known) <= 1

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.roles.is_larger_better else -1


@dataclass(frozen=True, eq=False)
class ForeignSetting:
    """Trials that differ in nothing but their seeds."""

    index: int
    """Its place among the settings of its stage."""
    stage: str
    values: Mapping[str, Value]
    scores: NDArray[np.float64]
    """What it is compared by, one for each seed."""
    chosen_by: float
    """The mean of what settings are chosen by."""
    trials: tuple[str, ...]

    @property
    def seeds(self) -> int:
        """Trials that it is the mean of."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """Of what it is compared by."""
        return float(self.scores.mean())

    def label(self, axes: Sequence[str]) -> str:
        """Its name, by these axes."""
        parts = [f"{axis} {format_value(self.values[axis])}" for axis in axes if self.values.get(axis) is not None]
        return ", ".join(parts) or "the one setting"


def settings_of(foreign: Foreign) -> dict[str, list[ForeignSetting]]:
    """Stage -> its settings, of the trials that are done and have a score."""
    groups: dict[str, dict[tuple[Value, ...], list[ForeignTrial]]] = {}
    for trial in foreign.trials:
        if trial.state is State.DONE and trial.judged_by is not None and trial.chosen_by is not None:
            key = tuple(trial.values[axis] for axis in foreign.roles.axes)
            groups.setdefault(trial.stage, {}).setdefault(key, []).append(trial)
    return {
        stage: [
            ForeignSetting(
                index=index,
                stage=stage,
                values=several[0].values,
                scores=np.array([one.judged_by for one in several], dtype=np.float64),
                chosen_by=float(np.mean([one.chosen_by for one in several if one.chosen_by is not None])),
                trials=tuple(one.id for one in several),
            )
            for index, several in enumerate(cells.values())
        ]
        for stage, cells in groups.items()
    }
