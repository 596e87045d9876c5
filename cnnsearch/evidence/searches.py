"""What was searched in a stage, and what came of each trial, in the order in which they were suggested."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnsearch.evidence.importance import Importances, importances
from cnnsearch.evidence.settings import Value, axis_values, is_missing
from cnnsearch.words import duration, size

if TYPE_CHECKING:
    from cnnsearch.evidence.evidence import Evidence

_RANGES = ("uniform", "loguniform", "int")
_LISTS = ("grid", "choice")
_BY_EPOCH = ("val_accuracy", "val_loss")
_LOG_RATIO = 30  # listed numbers that span more are laid out on a log scale


class Objective(NamedTuple):
    """What a search makes as large, or as small, as it can."""

    column: str
    is_larger_better: bool
    label: str

    def text(self, value: float) -> str:
        """A value of it as people read it."""
        if self.column.endswith("accuracy"):
            return f"{100 * value:.1f} %"
        if self.column == "seconds":
            return duration(value)
        if self.column == "model_bytes":
            return size(value) if value >= 1e6 else f"{value / 1e3:.0f} kB"
        return f"{value:,.0f}" if self.column == "parameters" else f"{value:.3f}"

    def is_better(self, a: float, b: float) -> bool:
        """Whether a is better than b."""
        return a > b if self.is_larger_better else a < b


_OBJECTIVES = {
    "val_accuracy": Objective("val_accuracy", True, "validation accuracy"),
    "val_loss": Objective("val_loss", False, "validation loss"),
    "seconds": Objective("seconds", False, "training time"),
    "parameters": Objective("parameters", False, "trainable parameters"),
    "bytes": Objective("model_bytes", False, "size of the model"),
}


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
    """Axis -> its values with which this one has a part in a trial."""

    @property
    def is_range(self) -> bool:
        """Whether it is a range of numbers."""
        return not self.listed

    @property
    def is_ordered(self) -> bool:
        """Whether its values are numbers."""
        return self.is_range or all(_is_number(value) for value in self.listed)

    def position(self, value: Value) -> float | None:
        """From 0 to 1 along the axis; listed values are evenly spaced. None for a value it does not have."""
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
        """The number at a position of a range."""
        if self.is_log:
            return float(self.low * (self.high / self.low) ** position)
        return self.low + position * (self.high - self.low)


@dataclass(frozen=True)
class Attempt:
    """One trial of a search."""

    number: int
    """From 1, in the order of suggestion."""
    trial_id: str
    status: str
    values: Mapping[str, Value]
    """Axis -> value, for the axes that have a part in this trial."""
    model: str
    scores: Mapping[str, float]
    """Objective's column -> value. Of a stopped trial, those of its best epoch until then."""
    epochs: int
    """Epochs trained."""
    is_comparable: bool
    """Whether its scores may be held against those of trials trained to the end: it was, or got no better."""
    planned: int | None
    """Epochs it was to train."""


class Rung(NamedTuple):
    """An epoch, or a span of them, at which trials were stopped."""

    first: int
    last: int
    reached: int
    """Trials that trained up to it."""
    stopped: int
    """Of those, stopped here."""

    @property
    def name(self) -> str:
        """The epoch, or the span."""
        return f"{self.first}" if self.first == self.last else f"{self.first}–{self.last}"


class Searched:
    """One stage's search. Everything is computed on first use and kept."""

    def __init__(self, evidence: Evidence, stage: str) -> None:
        self.evidence, self.stage = evidence, stage
        described = [one for one in evidence.tables.sweep.get("stages", []) if one.get("name") == stage]
        self._stage: dict[str, Any] = described[0] if described else {}

    @property
    def method(self) -> str:
        """The searcher's name."""
        return str((self._stage.get("search") or {}).get("method") or "grid")

    @property
    def stopping(self) -> dict[str, Any]:
        """The rule by which trials are stopped early; empty without one."""
        return dict(self._stage.get("stop_early") or {})

    @property
    def is_search(self) -> bool:
        """Whether trials were suggested one after another, rather than laid out."""
        return self.method != "grid"

    @property
    def is_shown(self) -> bool:
        """Whether there is anything to say of how it went: a grid trained to the end says it all by itself."""
        return self.is_search or bool(self.stopping) or bool(self.pruned)

    @cached_property
    def planned(self) -> int | None:
        """Trials the search was to have; None where the sweep does not say."""
        trials = (self._stage.get("search") or {}).get("trials")
        return trials if isinstance(trials, int) else None

    @cached_property
    def objectives(self) -> list[Objective]:
        """What was searched for, the first one first."""
        named = (self._stage.get("search") or {}).get("objectives") or ["val_accuracy"]
        named = [named] if isinstance(named, str) else list(named)
        return [
            _OBJECTIVES.get(
                str(name), Objective(str(name), str(name).endswith("accuracy"), str(name).replace("_", " "))
            )
            for name in named
        ]

    @property
    def objective(self) -> Objective:
        """The first one: what histories and importances are about."""
        return self.objectives[0]

    @cached_property
    def axes(self) -> list[Axis]:
        """The axes that vary, in the order of the space."""
        found = [_axis(str(name), raw) for name, raw in (self._stage.get("space") or {}).items() if name != "seed"]
        return [axis for axis in found if axis is not None]

    @property
    def has_ranges(self) -> bool:
        """Whether an axis is a range, so that every trial has a value of its own."""
        return any(axis.is_range for axis in self.axes)

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Every trial that ended, in the order of suggestion."""
        frame = self.evidence.tables.trials
        rows = frame[frame["stage"] == self.stage].to_dict("records")
        trained = self._trained
        return [self._attempt(i + 1, row, trained.get(str(row["trial_id"]), 0)) for i, row in enumerate(rows)]

    @cached_property
    def _trained(self) -> dict[str, int]:
        epochs = self.evidence.tables.epochs
        return {str(id_): int(last) for id_, last in epochs.groupby("trial_id")["epoch"].max().items()}

    def _attempt(self, number: int, row: Mapping[Any, Any], trained: int) -> Attempt:
        scores = {one.column: float(row[one.column]) for one in self.objectives if not is_missing(row.get(one.column))}
        trial_id, status = str(row["trial_id"]), str(row["status"])
        for one in self.objectives:
            if one.column not in scores and status == "pruned" and one.column in _BY_EPOCH:
                _, curve = self.evidence.curve(trial_id, one.column)
                if len(curve):
                    scores[one.column] = float(max(curve) if one.is_larger_better else min(curve))
        values = axis_values(row)
        done = row.get("epochs_done")
        return Attempt(
            number=number,
            trial_id=trial_id,
            status=status,
            values={axis.name: values[axis.name] for axis in self.axes if self._has_part(axis, values)},
            model=str(values.get("model") or ""),
            scores=scores if status in ("done", "pruned") else {},
            epochs=trained if is_missing(done) else int(done),  # type: ignore[arg-type]
            is_comparable=status == "done" or (status == "pruned" and row.get("stopped_by") == "patience"),
            planned=None if values["epochs"] is None else int(values["epochs"]),
        )

    def _has_part(self, axis: Axis, values: Mapping[str, Value]) -> bool:
        by_name = {one.name: one for one in self.axes}
        return axis.name in values and all(
            values.get(name) in allowed and (name not in by_name or self._has_part(by_name[name], values))
            for name, allowed in axis.when.items()
        )

    @cached_property
    def scored(self) -> list[Attempt]:
        """Those whose scores may be compared, and that have the first objective."""
        return [one for one in self.attempts if one.is_comparable and self.objective.column in one.scores]

    @cached_property
    def pruned(self) -> list[Attempt]:
        """Those stopped before their last epoch, for whatever reason."""
        return [one for one in self.attempts if one.status == "pruned"]

    @cached_property
    def stopped(self) -> list[Attempt]:
        """Of those, the ones whose scores may not be held against those of trials trained to the end."""
        return [one for one in self.pruned if not one.is_comparable]

    @cached_property
    def lost(self) -> list[Attempt]:
        """Those that failed or diverged."""
        return [one for one in self.attempts if one.status in ("failed", "diverged")]

    def epochs_of(self, trial_id: str) -> int | None:
        """Epochs a trial has trained; None for one that is not of this stage."""
        return self._epochs_by_id.get(trial_id)

    @cached_property
    def _epochs_by_id(self) -> dict[str, int]:
        return {one.trial_id: one.epochs for one in self.attempts}

    def score(self, attempt: Attempt) -> float:
        """Its first objective."""
        return attempt.scores[self.objective.column]

    def ranked(self) -> list[Attempt]:
        """The trials trained to the end, the best by the first objective first, the earliest of equals."""
        sign = -1 if self.objective.is_larger_better else 1
        return sorted(self.scored, key=lambda one: (sign * self.score(one), one.number))

    @cached_property
    def best(self) -> Attempt | None:
        """The best of those trained to the end."""
        return next(iter(self.ranked()), None)

    @property
    def top(self) -> list[Attempt]:
        """The best tenth of those trained to the end, five at least."""
        return self.ranked()[: max(5, round(0.1 * len(self.scored)))]

    def running_best(self) -> Iterator[Attempt]:
        """The trials that were better than all suggested before them."""
        best: float | None = None
        for one in self.scored:
            if best is None or self.objective.is_better(self.score(one), best):
                best = self.score(one)
                yield one

    @cached_property
    def front(self) -> list[Attempt]:
        """The trials no other is at least as good as in every objective and better in one: the Pareto set.

        In the order of the first objective, the best first; of equal ones the earliest. Only trials trained to the end
        that have every objective.
        """
        signs = [-1 if one.is_larger_better else 1 for one in self.objectives]

        def costs(one: Attempt) -> tuple[float, ...]:
            return tuple(sign * one.scores[o.column] for sign, o in zip(signs, self.objectives, strict=True))

        whole = [
            one for one in self.attempts if one.is_comparable and all(o.column in one.scores for o in self.objectives)
        ]
        found: list[Attempt] = []
        for one in sorted(whole, key=lambda one: (costs(one), one.number)):
            # Whoever dominates stands before it in this order.
            if not any(all(a <= b for a, b in zip(costs(other), costs(one), strict=True)) for other in found):
                found.append(one)
        return found

    @cached_property
    def common_epoch(self) -> int | None:
        """The epoch at which trials are compared where most were stopped: the last one that all of them reached.

        Those trained to the end are then a choice of the best: what they differ in says little of what matters. None
        where at least half were trained to the end, which are then compared at their end.
        """
        if len(self.stopped) <= len(self.scored) or self.objective.column not in _BY_EPOCH:
            return None
        return max(1, min(one.epochs for one in self.stopped))

    @cached_property
    def comparable(self) -> list[tuple[Attempt, float]]:
        """Trials with the first objective after one and the same budget: see `common_epoch`."""
        epoch = self.common_epoch
        if epoch is None:
            return [(one, self.score(one)) for one in self.scored]
        found = []
        for one in self.attempts:
            epochs, values = self.evidence.curve(one.trial_id, self.objective.column)
            known = values[(epochs >= 1) & (epochs <= epoch)]
            if one.status in ("done", "pruned") and len(known) and one.epochs >= epoch:
                found.append((one, float(known.max() if self.objective.is_larger_better else known.min())))
        return found

    @cached_property
    def importances(self) -> Importances | None:
        """Of the axes for the first objective, from `comparable` settings; None where these are too few."""
        cells: dict[tuple[Value, ...], list[tuple[Attempt, float]]] = {}
        for one, score in self.comparable:  # seeds of a setting are one point
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
        """The axes, the most important first; in the order of the space where that is not known."""
        ranked = self.importances.ranked if self.importances else []
        return [self.axis(name) for name in ranked] + [axis for axis in self.axes if axis.name not in ranked]

    @cached_property
    def telling(self) -> list[Axis]:
        """The axes in the order in which they describe a trial: those that may matter, then as the space has them."""
        found = self.importances
        likely = [axis for axis in self.by_importance if found is not None and found.is_likely(axis.name)]
        return likely + [axis for axis in self.axes if axis not in likely]

    def rungs(self, most: int = 10) -> list[Rung]:
        """The epochs at which trials were stopped, in order; where they are more than `most`, spans of epochs."""
        ends = sorted(one.epochs for one in self.pruned)
        epochs = sorted(set(ends))
        if not epochs:
            return []
        edges = [(epoch, epoch) for epoch in epochs]
        if len(epochs) > most:
            width = math.ceil((epochs[-1] - epochs[0] + 1) / most)
            firsts = range(epochs[0], epochs[-1] + 1, width)
            edges = [(first, min(first + width - 1, epochs[-1])) for first in firsts]
        trained = [one.epochs for one in self.attempts if one.status in ("done", "pruned")]
        return [
            Rung(first, last, sum(e >= first for e in trained), sum(first <= e <= last for e in ends))
            for first, last in edges
        ]


def searches(evidence: Evidence) -> list[Searched]:
    """The stages of which there is something to show, in the order of the sweep."""
    named = [str(stage.get("name")) for stage in evidence.tables.sweep.get("stages", [])]
    found = [Searched(evidence, name) for name in named]
    return [one for one in found if one.attempts and one.is_shown]


def thinned(items: Sequence[Attempt], most: int) -> list[Attempt]:
    """At most so many, evenly spaced in their order."""
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


def _axis(name: str, raw: Any) -> Axis | None:
    """An axis from its entry in the sweep; None for a constant, also one that only some trials have."""
    if not isinstance(raw, dict):
        return None
    when = {str(key): tuple(values) for key, values in (raw.get("when") or {}).items()}
    for kind in _RANGES:
        if kind in raw:
            low, high = (float(end) for end in raw[kind])
            return Axis(name, kind, low, high, kind == "loguniform", (), when)
    for kind in _LISTS:
        values = list(raw.get(kind) or [])
        if len(values) > 1:
            numbers = all(_is_number(value) for value in values)
            values = sorted(values) if numbers else values
            low, high = (float(values[0]), float(values[-1])) if numbers else (0.0, 0.0)
            return Axis(name, kind, low, high, numbers and low > 0 and high / low > _LOG_RATIO, tuple(values), when)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
