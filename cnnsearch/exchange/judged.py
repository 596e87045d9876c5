"""What trials of another tool show: the statistics of reports without the predictions of single images.

All that varies are seeds, and settings. So two settings are told apart over seeds alone, three of each or more (Welch's
t, with the spread of seeds shared as in `evidence.crossed`), and an axis over matched pairs of settings (Student's t)
or by how much of the spread of many settings it explains (`evidence.importance`). Half of the error rate of 5 % is for
axes, half for single settings, as in every report.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cnnsearch import stats
from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS, Comparison
from cnnsearch.evidence.crossed import Answered, luck_of_the_best, sharing_spread
from cnnsearch.evidence.importance import LEAST_TRIALS, Importances, importances
from cnnsearch.evidence.verdicts import Verdict, judge_all
from cnnsearch.exchange.foreign import Foreign, ForeignSetting
from cnnsearch.spec.axis_words import Value

HALF = stats.SIGNIFICANCE / 2
MOST_VALUES = 12
"""Most values of an axis that are compared two by two."""
MOST_PAIRED = 1500
"""Most settings that are compared two by two."""
MOST_EXPLAINED = 600
"""Most settings, drawn at random, from which it is computed what explains their spread."""
LEAST_RATIO = 100
"""Largest over smallest value from which an axis of numbers is taken to have been searched on a logarithmic scale."""


@dataclass(frozen=True)
class Statement:
    """One value of an axis against another, over settings that differ in nothing else."""

    axis: str
    ahead: Value
    behind: Value
    comparison: Comparison
    """By how much the first is better."""
    verdict: Verdict


class Judged:
    """One stage of trials, judged. Differences are gains: positive where the first is better."""

    def __init__(self, foreign: Foreign, stage: str, settings: Sequence[ForeignSetting]) -> None:
        """`settings` are those of the stage, one or more."""
        self.foreign, self.stage, self.settings = foreign, stage, list(settings)
        self.axes = [axis for axis in foreign.roles.axes if len({one.values[axis] for one in settings}) > 1]
        self._sides = sharing_spread([Answered.of(foreign.sign * one.scores[:, None]) for one in settings])

    @cached_property
    def usual_seeds(self) -> int:
        """The number of seeds that most settings have."""
        return Counter(one.seeds for one in self.settings).most_common(1)[0][0]

    @cached_property
    def best(self) -> ForeignSetting:
        """The best mean by what settings are chosen by. One with fewer seeds than usual ranks behind the others."""
        return max(
            self.settings,
            key=lambda one: (one.seeds >= self.usual_seeds, self.foreign.sign * one.chosen_by, -one.index),
        )

    @property
    def tells_settings_apart(self) -> bool:
        """Whether at least two settings have the seeds that it takes, and there are not too many to compare."""
        return 1 < sum(one.seeds >= LEAST_SEEDS for one in self.settings) <= MOST_PAIRED

    @cached_property
    def worse(self) -> frozenset[int]:
        """Settings that are significantly worse than another, after Holm's correction over all pairs."""
        sides = [side for side in self._sides if side.replicates >= LEAST_SEEDS]
        if not self.tells_settings_apart:
            return frozenset()
        known = [one.index for one in self.settings if one.seeds >= LEAST_SEEDS]
        value, p_values = _between_all(sides)
        upper = np.triu_indices(len(sides), 1)
        bound = stats.holm_bound(p_values[upper], HALF)
        is_worse = np.any((p_values < bound) & (value < 0), axis=1).tolist()
        return frozenset(index for index, worse in zip(known, is_worse, strict=True) if worse)

    @cached_property
    def near_best(self) -> list[ForeignSetting]:
        """The other settings that may be as good as the best one: those that are not worse than any."""
        return [one for one in self.settings if one is not self.best and one.index not in self.worse]

    @cached_property
    def luck(self) -> float:
        """How much of the best one's lead is likely to be the luck of its seeds; 0 where that cannot be told."""
        if self.best.seeds < LEAST_SEEDS or len(self.settings) < 2 or self.best.seeds != self.usual_seeds:
            return 0.0
        alike = [index for index, one in enumerate(self.settings) if one.seeds >= LEAST_SEEDS]
        sides = [self._sides[index] for index in alike]
        chosen = [self.settings[index] for index in alike].index(self.best)
        return max(0.0, luck_of_the_best(sides, chosen, on_same_images=False)) if len(sides) > 1 else 0.0

    def interval(self, setting: ForeignSetting) -> stats.Estimate | None:
        """A setting's mean with its interval over seeds; None with fewer than `LEAST_SEEDS`."""
        side = self._sides[setting.index]
        if side.replicates < LEAST_SEEDS:
            return None
        half = float(special.stdtrit(side.degrees, (1 + stats.LEVEL) / 2)) * math.sqrt(side.between)
        luck = self.foreign.sign * self.luck if setting is self.best else 0.0
        return stats.Estimate(setting.mean, setting.mean - half - max(0.0, luck), setting.mean + half - min(0.0, luck))

    @cached_property
    def statements(self) -> list[Statement]:
        """The leading value of each axis against every other, over at least `LEAST_PAIRS` matched pairs."""
        found: list[tuple[str, Value, Value, Comparison]] = []
        leads: dict[str, Value] = {}
        for axis in self.axes:
            by_value = self._matched(axis)
            if len(by_value) > MOST_VALUES:
                continue
            means = {value: float(np.mean([*cells.values()])) for value, cells in by_value.items()}
            leads[axis] = max(means, key=lambda value: means[value])
            for value, other in combinations(by_value, 2):
                ahead, behind = (value, other) if means[value] >= means[other] else (other, value)
                common = by_value[ahead].keys() & by_value[behind].keys()
                gains = [by_value[ahead][rest] - by_value[behind][rest] for rest in sorted(common, key=repr)]
                if len(gains) >= LEAST_PAIRS:
                    found.append((axis, ahead, behind, _of_pairs(gains)))
        # Which value leads was found by looking: every two values count as compared.
        verdicts = judge_all([comparison for *_, comparison in found], HALF)
        return [
            Statement(axis, ahead, behind, comparison, verdict)
            for (axis, ahead, behind, comparison), verdict in zip(found, verdicts, strict=True)
            if ahead == leads[axis]
        ]

    def _matched(self, axis: str) -> dict[Value, dict[tuple[Value, ...], float]]:
        """Value of an axis -> the other settings with it -> score, so that more is better."""
        rest = [other for other in self.axes if other != axis]
        found: dict[Value, dict[tuple[Value, ...], float]] = {}
        for one in self.settings:
            cell = tuple(one.values[other] for other in rest)
            found.setdefault(one.values[axis], {})[cell] = self.foreign.sign * one.mean
        return found

    @cached_property
    def unpaired(self) -> list[str]:
        """Axes of which no two values have enough matched settings."""
        paired = {statement.axis for statement in self.statements}
        return [axis for axis in self.axes if axis not in paired]

    @cached_property
    def importances(self) -> Importances | None:
        """What explains the spread of the settings' scores, where axes have no pairs and settings are enough."""
        if not self.unpaired or len(self.settings) < LEAST_TRIALS:
            return None
        drawn = np.random.default_rng(0).permutation(len(self.settings))[:MOST_EXPLAINED]
        settings = [self.settings[index] for index in sorted(drawn)]
        columns: dict[str, list[float | None]] = {}
        kinds: dict[str, int] = {}
        for axis in self.axes:
            columns[axis], many = _positions([one.values[axis] for one in settings])
            if many is not None:
                kinds[axis] = many
        return importances(columns, kinds, [one.mean for one in settings])


def judged(foreign: Foreign, settings: Mapping[str, Sequence[ForeignSetting]]) -> Iterator[Judged]:
    """Judge each stage; the one with the most settings comes first."""
    for stage, of_stage in sorted(settings.items(), key=lambda item: -len(item[1])):
        yield Judged(foreign, stage, of_stage)


def _of_pairs(gains: Sequence[float]) -> Comparison:
    """Student's t over pairs; the interval covers other settings like these, each with its seeds."""
    difference, n = stats.mean_interval(gains), len(gains)
    deviation = float(np.std(gains, ddof=1))
    if deviation == 0:
        p_value = 1.0 if difference.value == 0 else 0.0
    else:
        p_value = float(2 * special.stdtr(n - 1, -abs(difference.value) / (deviation / math.sqrt(n))))
    ahead = sum(gain > 0 for gain in gains)
    return Comparison(difference, p_value, "pairs", pairs=n, seeds=1, ahead=ahead)


def _between_all(sides: Sequence[Answered]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Welch's t of every two sides: differences and two-sided p-values, both [sides, sides]; p is 1 on the diagonal."""
    mean = np.array([float(side.mean[0]) for side in sides])
    variance, degrees = (np.array([getattr(side, name) for side in sides]) for name in ("between", "degrees"))
    value = mean[:, None] - mean[None, :]
    total = variance[:, None] + variance[None, :]
    parts = np.square(variance) / degrees
    squares = parts[:, None] + parts[None, :]
    freedom = np.divide(total**2, squares, out=np.ones_like(total), where=squares > 0)
    without = np.where(value == 0, 0.0, -np.inf)  # seeds that all gave the same number
    t = np.divide(-np.abs(value), np.sqrt(total), out=without, where=total > 0)
    p_values = np.minimum(1.0, 2 * special.stdtr(freedom, t))
    np.fill_diagonal(p_values, 1.0)
    return value, p_values


def _positions(values: Sequence[Value]) -> tuple[list[float | None], int | None]:
    """Values as positions from 0 to 1, or as codes with their number where they are words."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, str | bool) for value in known):
        codes = {value: code for code, value in enumerate(sorted({*known}, key=repr))}
        return [None if value is None else float(codes[value]) for value in values], len(codes)
    numbers = [float(value) for value in known if not isinstance(value, str)]
    low, high = min(numbers), max(numbers)
    is_log = low > 0 and high / low >= LEAST_RATIO

    def place(value: float) -> float:
        if low == high:
            return 0.0
        return math.log(value / low) / math.log(high / low) if is_log else (value - low) / (high - low)

    return [None if value is None or isinstance(value, str) else place(float(value)) for value in values], None
