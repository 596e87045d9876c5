"""The searches of a sweep: their trials in the order of suggestion, the best of them, and what mattered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from cnnsearch.evidence.configurations import is_comparable, is_missing
from cnnsearch.evidence.importance import Importances, importances
from cnnsearch.evidence.recorded import Recorded
from cnnsearch.evidence.space import OBJECTIVES, Axis, Objective, axis_of
from cnnsearch.spec.axis_words import Value
from cnnsearch.spec.stage import Stage

T = TypeVar("T")

LEAST_FOR_PROGRESS = 12
"""Fewest fully trained trials from which a report says how a search went."""


@dataclass(frozen=True)
class Attempt:
    """One trial of a search."""

    number: int
    """Number of the trial in the order of suggestion, from 1."""
    trial_id: str
    status: str
    values: Mapping[str, Value]
    """Axis -> value, for the axes that apply to this trial."""
    model: str
    scores: Mapping[str, float]
    """Column of an objective -> value; for a stopped trial, at its best epoch until then."""
    epochs: int
    """Epochs that were trained."""
    is_comparable: bool
    """Whether its scores can be compared with those of fully trained trials. True also if it was stopped because it no
    longer improved.
    """
    planned: int | None
    """Epochs that were planned."""


class Rung(NamedTuple):
    """An epoch, or a span of them, at which trials were stopped."""

    first: int
    last: int
    reached: int
    """Trials that trained up to it."""
    stopped: int
    """How many of those were stopped here."""

    @property
    def name(self) -> str:
        """The epoch, or the span."""
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


class Searched:
    """The search of one stage. Everything is computed on first use and kept."""

    def __init__(self, recorded: Recorded, spec: Stage) -> None:
        self.recorded, self.spec = recorded, spec

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.spec.name

    @property
    def method(self) -> str:
        """Name of the search method."""
        return self.spec.search.method

    @property
    def is_search(self) -> bool:
        """Whether trials were drawn or suggested, rather than laid out as a grid."""
        return self.method != "grid"

    @property
    def is_shown(self) -> bool:
        """Whether a report has a section on it: not for a grid whose trials were all trained to the end."""
        stopped = any(row["status"] == "pruned" for row, _ in self._rows)
        return self.is_search or self.spec.stop_early is not None or stopped

    @cached_property
    def objectives(self) -> list[Objective]:
        """What the search optimises, in the order of the sweep."""
        return [OBJECTIVES[name] for name in self.spec.search.objectives or (self.recorded.tables.sweep.measure,)]

    @property
    def objective(self) -> Objective:
        """The first objective, which histories and importances are about."""
        return self.objectives[0]

    @cached_property
    def axes(self) -> list[Axis]:
        """The axes that vary, in the order of the space."""
        found = [axis_of(name, values) for name, values in self.spec.space.items() if name != "seed"]
        return [axis for axis in found if axis is not None]

    @property
    def has_ranges(self) -> bool:
        """Whether an axis is a range, so that every trial has a value of its own."""
        return any(axis.is_range for axis in self.axes)

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Every trial that ended, in the order of suggestion."""
        return [self._attempt(number, row, values) for number, (row, values) in enumerate(self._rows, start=1)]

    @cached_property
    def _rows(self) -> list[tuple[dict[Any, Any], dict[str, Value]]]:
        """The stage's rows of the table of trials, each with its hyperparameters."""
        found = zip(self.recorded.rows, self.recorded.values, strict=True)
        return [(row, values) for row, values in found if row["stage"] == self.stage]

    @property
    def _by_epoch(self) -> tuple[str, ...]:
        """The objectives that are known after every epoch."""
        return ("val_accuracy", "val_loss", self.recorded.tables.sweep.measure)

    @cached_property
    def _trained(self) -> dict[str, int]:
        epochs = self.recorded.tables.epochs
        return {str(id_): int(last) for id_, last in epochs.groupby("trial_id")["epoch"].max().items()}

    def _attempt(self, number: int, row: Mapping[Any, Any], values: Mapping[str, Value]) -> Attempt:
        scores = {one.column: float(row[one.column]) for one in self.objectives if not is_missing(row.get(one.column))}
        trial_id, status = str(row["trial_id"]), str(row["status"])
        for one in self.objectives:
            if one.column not in scores and status == "pruned" and one.column in self._by_epoch:
                _, curve = self.recorded.curve(trial_id, one.column)
                if len(curve):
                    scores[one.column] = float(max(curve) if one.is_larger_better else min(curve))
        done = row.get("epochs_done")
        return Attempt(
            number=number,
            trial_id=trial_id,
            status=status,
            values={axis.name: values[axis.name] for axis in self.axes if self._has_part(axis, values)},
            model=str(values.get("model") or ""),
            scores=scores if status in ("done", "pruned") else {},
            epochs=self._trained.get(trial_id, 0) if is_missing(done) else int(done),  # type: ignore[arg-type]
            is_comparable=is_comparable(row),
            planned=None if values["epochs"] is None else int(values["epochs"]),
        )

    def _has_part(self, axis: Axis, values: Mapping[str, Value]) -> bool:
        by_name = {one.name: one for one in self.axes}
        return axis.name in values and all(
            values.get(name) in allowed and (name not in by_name or self._has_part(by_name[name], values))
            for name, allowed in axis.when.items()
        )

    @cached_property
    def done(self) -> int:
        """How many trials were trained to their last epoch."""
        return sum(one.status == "done" for one in self.attempts)

    @cached_property
    def scored(self) -> list[Attempt]:
        """Comparable trials that have the first objective."""
        return [one for one in self.attempts if one.is_comparable and self.objective.column in one.scores]

    @cached_property
    def pruned(self) -> list[Attempt]:
        """Trials stopped before their last epoch, for whatever reason."""
        return [one for one in self.attempts if one.status == "pruned"]

    @cached_property
    def stopped(self) -> list[Attempt]:
        """Pruned trials whose scores do not compare with those of trials trained to the end."""
        return [one for one in self.pruned if not one.is_comparable]

    @cached_property
    def lost(self) -> list[Attempt]:
        """Trials that failed or diverged."""
        return [one for one in self.attempts if one.status in ("failed", "diverged")]

    def epochs_of(self, trial_id: str) -> int | None:
        """Epochs that a trial has trained; None for a trial of another stage."""
        return self._epochs_by_id.get(trial_id)

    @cached_property
    def _epochs_by_id(self) -> dict[str, int]:
        return {one.trial_id: one.epochs for one in self.attempts}

    def score(self, attempt: Attempt) -> float:
        """The first objective of a trial."""
        return attempt.scores[self.objective.column]

    def ranked(self) -> list[Attempt]:
        """`scored`, sorted by the first objective, the best first; of equal ones the earliest."""
        sign = -1 if self.objective.is_larger_better else 1
        return sorted(self.scored, key=lambda one: (sign * self.score(one), one.number))

    @cached_property
    def best(self) -> Attempt | None:
        """The first of `ranked`; None where there is none."""
        return next(iter(self.ranked()), None)

    @property
    def top(self) -> list[Attempt]:
        """The first tenth of `ranked`, at least five."""
        return self.ranked()[: max(5, round(0.1 * len(self.scored)))]

    def running_best(self) -> Iterator[Attempt]:
        """Yield the trials that were better than all suggested before them."""
        best: float | None = None
        for one in self.scored:
            if best is None or self.objective.is_better(self.score(one), best):
                best = self.score(one)
                yield one

    @cached_property
    def front(self) -> list[Attempt]:
        """The Pareto set: trials that no other trial equals or beats in every objective.

        In the order of the first objective, the best first; of equal trials the earliest. Only comparable trials that
        have every objective take part.
        """
        signs = [-1 if one.is_larger_better else 1 for one in self.objectives]

        def costs(one: Attempt) -> tuple[float, ...]:
            return tuple(sign * one.scores[o.column] for sign, o in zip(signs, self.objectives, strict=True))

        whole = [
            one for one in self.attempts if one.is_comparable and all(o.column in one.scores for o in self.objectives)
        ]
        found: list[Attempt] = []
        for one in sorted(whole, key=lambda one: (costs(one), one.number)):
            # A trial that dominates this one comes before it in this order.
            if not any(all(a <= b for a, b in zip(costs(other), costs(one), strict=True)) for other in found):
                found.append(one)
        return found

    @cached_property
    def common_epoch(self) -> int | None:
        """The epoch at which trials are compared if most were stopped: the last one that all stopped trials reached.

        The fully trained trials are then only the best, and say little about which axes matter. None if at least half
        of the trials were fully trained: trials are then compared at their end.
        """
        if len(self.stopped) <= len(self.scored) or self.objective.column not in self._by_epoch:
            return None
        return max(1, min(one.epochs for one in self.stopped))

    @cached_property
    def comparable(self) -> list[tuple[Attempt, float]]:
        """Trials with the value of their first objective at `common_epoch`, or at their end if that is None."""
        epoch = self.common_epoch
        if epoch is None:
            return [(one, self.score(one)) for one in self.scored]
        found = []
        for one in self.attempts:
            epochs, values = self.recorded.curve(one.trial_id, self.objective.column)
            known = values[(epochs >= 1) & (epochs <= epoch)]
            if one.status in ("done", "pruned") and len(known) and one.epochs >= epoch:
                found.append((one, float(known.max() if self.objective.is_larger_better else known.min())))
        return found

    @cached_property
    def importances(self) -> Importances | None:
        """Importances of the axes for the first objective, from `comparable`; None with too few trials."""
        cells: dict[tuple[Value, ...], list[tuple[Attempt, float]]] = {}
        for one, score in self.comparable:  # the seeds of a configuration are one point
            cells.setdefault(tuple(one.values.get(axis.name) for axis in self.axes), []).append((one, score))
        firsts = [group[0][0] for group in cells.values()]
        columns = {axis.name: [_code(axis, one) for one in firsts] for axis in self.axes}
        columns = {name: values for name, values in columns.items() if len({v for v in values if v is not None}) > 1}
        kinds = {axis.name: len(axis.listed) for axis in self.axes if not axis.is_ordered and axis.name in columns}
        scores = [sum(score for _, score in group) / len(group) for group in cells.values()]
        return importances(columns, kinds, scores)

    def axis(self, name: str) -> Axis:
        """The axis of this name."""
        return next(axis for axis in self.axes if axis.name == name)

    @cached_property
    def by_importance(self) -> list[Axis]:
        """The axes, the most important first; in the order of the space where importances are not known."""
        ranked = self.importances.ranked if self.importances else []
        return [self.axis(name) for name in ranked] + [axis for axis in self.axes if axis.name not in ranked]

    @cached_property
    def telling(self) -> list[Axis]:
        """The axes in the order in which a trial's description names them: those that may matter first."""
        found = self.importances
        likely = [axis for axis in self.by_importance if found is not None and found.is_likely(axis.name)]
        return likely + [axis for axis in self.axes if axis not in likely]

    def rungs(self, most: int = 10) -> list[Rung]:
        """The epochs at which trials were stopped, in order; joined into at most `most` spans."""
        ends = sorted(one.epochs for one in self.pruned)
        epochs = sorted(set(ends))
        trained = [one.epochs for one in self.attempts if one.status in ("done", "pruned")]
        return [
            Rung(first, last, sum(e >= first for e in trained), sum(first <= e <= last for e in ends))
            for first, last in spans(epochs, most)
        ]


def searches(recorded: Recorded) -> list[Searched]:
    """The searches that a report shows, in the order of the sweep."""
    found = [Searched(recorded, stage) for stage in recorded.tables.sweep.stages]
    return [one for one in found if one.is_shown and one.attempts]


def thinned(items: Sequence[T], most: int) -> list[T]:
    """Pick at most `most` items, evenly spaced, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[int(i * len(items) / most)] for i in range(most)]


def _code(axis: Axis, attempt: Attempt) -> float | None:
    if axis.name not in attempt.values:
        return None
    value = attempt.values[axis.name]
    if axis.is_ordered:
        return axis.position(value)
    return float(axis.listed.index(value)) if value in axis.listed else None


def spans(epochs: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Return ascending epochs as spans (first, last): one for each, or at most `most` wider ones of equal width."""
    if len(epochs) <= most:
        return [(epoch, epoch) for epoch in epochs]
    width = math.ceil((epochs[-1] - epochs[0] + 1) / most)
    return [(first, min(first + width - 1, epochs[-1])) for first in range(epochs[0], epochs[-1] + 1, width)]
