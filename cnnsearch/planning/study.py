"""A searcher's study: the suggestions for one stage, or for one group of the stage it starts from. Pure.

A study's id is a hash of everything that decides its suggestions, as a trial's id is of everything that decides its
result. What is recorded under an id is used as it is; any change of the question gives another id, and a new study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnnsearch.planning.trial import Outcome, Trial
from cnnsearch.spec.cells import Cell
from cnnsearch.spec.confirm import Confirm
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.stage import Stage
from cnnsearch.spec.sweep import Sweep
from cnnsearch.storage.checksums import canonical_json

Suggestions = Mapping[str, Sequence[Cell]]
"""Study id -> its suggestions so far, in order."""


@dataclass(frozen=True)
class Study:
    """A searcher's suggestions for a stage, or for one group of the stage it starts from."""

    id: str
    """A hash of everything that decides the suggestions."""
    stage: Stage
    group: tuple[Any, ...]
    """The group's values of the axes `start_from.per`; empty without groups."""
    suggestions: tuple[Cell, ...]
    trials: tuple[tuple[Trial, ...], ...]
    """Suggestion -> its trials, one for each seed."""
    parents: tuple[str, ...] = ()
    """Ids of the trials that these start from, one for each seed."""

    @property
    def is_complete(self) -> bool:
        """Whether all suggestions are made."""
        return len(self.suggestions) == self.stage.search.trials

    def ended(self, outcomes: Mapping[str, Outcome]) -> int:
        """Count the suggestions before the first one that has a trial left to run."""
        for index, members in enumerate(self.trials):
            if any(trial.id not in outcomes for trial in members):
                return index
        return len(self.trials)

    def due(self, outcomes: Mapping[str, Outcome]) -> int:
        """Number of further suggestions that can be made now."""
        search = self.stage.search
        assert search.trials is not None
        return max(0, min(search.trials, self.ended(outcomes) + search.window) - len(self.suggestions))


def root_study_id(sweep: Sweep, stage: Stage, data: str, weights: Mapping[tuple[str, str], str]) -> str:
    """Return the id of the study of a stage that starts from no other.

    Args:
        sweep: that the stage belongs to.
        stage: whose space is searched.
        data: fingerprint of the data.
        weights: (model, weights as the sweep names them) -> digest.
    """
    base = Settings.model_construct(**sweep.base)
    # What the cell always replaces decides nothing.
    held = {name: value for name, value in base.deciding().items() if not _is_replaced(stage, name)}
    named = {base.weights, *(stage.space["weights"].args if "weights" in stage.space else ())}
    digests = sorted([*key, digest] for key, digest in weights.items() if key[1] in named)
    code = {"code": sweep.digests_of_code} if sweep.code else {}
    folds = {"folds": sweep.folds.model_dump(exclude={"method"})} if sweep.folds else {}
    return _id(stage, {"data": data, "seeds": list(sweep.seeds), "train": held, "weights": digests, **code, **folds})


def child_study_id(stage: Stage, lineage: Iterable[Sequence[Mapping[str, Any]]], data: str) -> str:
    """Return the id of the study for one group of the stage that a stage starts from.

    Args:
        stage: whose space is searched.
        lineage: for each trial that is started from, what decided it and its ancestors. Not their ids, so that another
            version of the code finds the study again.
        data: fingerprint of the data.
    """
    return _id(stage, {"data": data, "parents": [[dict(step) for step in line] for line in lineage]})


def confirm_study_id(confirm: Confirm, ended: Iterable[tuple[Sequence[Trial], Outcome]]) -> str:
    """Return the id under which it is recorded which settings are trained again on fresh seeds.

    Args:
        confirm: how many are chosen. More seeds are no other choice.
        ended: each trial of the sweep with those it descends from, and its outcome. Not their ids: see
            `child_study_id`.
    """
    known = [
        [[decided(trial) for trial in line], line[-1].data, outcome.status, outcome.measured(measure_of(line[-1]))]
        for line, outcome in ended
    ]
    return _hashed({"contenders": confirm.contenders, "margin": confirm.margin, "ended": known})


def measure_of(trial: Trial) -> str:
    """The column of the metric that chooses, on validation."""
    return METRICS[trial.settings.metric].measure


def decided(trial: Trial) -> dict[str, Any]:
    """What decides a trial's result, beside its data and the trial it starts from."""
    return {**trial.settings.deciding(), "weights": trial.weights}


def _is_replaced(stage: Stage, name: str) -> bool:
    return name in stage.space and not stage.space[name].when


def _id(stage: Stage, facts: dict[str, Any]) -> str:
    search = stage.search
    axes = [[axis, values.model_dump()] for axis, values in stage.space.items()]
    how = {"method": search.method, "seed": search.seed, "at_once": search.at_once, "objectives": list(search.aims)}
    first = {"first": [*search.first]} if search.first else {}
    return _hashed({**facts, "search": how | first, "space": axes})


def _hashed(facts: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]
