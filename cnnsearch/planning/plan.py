"""The plan of a sweep: all its trials and those left to run, from the sweep and what is recorded. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from cnnsearch.errors import ResultsError
from cnnsearch.planning.confirm import MOST, Confirmation, Contender, confirmation, ready_trials
from cnnsearch.planning.setting import SettingKey, setting_key
from cnnsearch.planning.study import Study, Suggestions, child_study_id, decided, root_study_id
from cnnsearch.planning.trial import Outcome, Status, Trial
from cnnsearch.spec.arguments import ARGS
from cnnsearch.spec.cells import Cell, can_suggest, cell_of, cells, size, typical_cells
from cnnsearch.spec.confirm import CONFIRM, Confirm
from cnnsearch.spec.settings import Settings
from cnnsearch.spec.stage import Stage, StartFrom, StopEarly
from cnnsearch.spec.sweep import Sweep
from cnnsearch.spec.values import NUMERIC_KINDS


@dataclass(frozen=True)
class StagePlan:
    """The trials of one stage, as far as they are known."""

    stage: Stage
    trials: tuple[Trial, ...]
    waiting: int = 0
    """Number of trials whose parent is not chosen yet, or that are not suggested yet."""
    lost: int = 0
    """Number of trials that can never run, because none of their possible parents finished."""
    studies: tuple[Study, ...] = ()
    """Where a searcher suggests the trials: one study for each group whose parents are chosen."""
    typical: tuple[Trial, ...] = ()
    """Samples of trials used for estimates while suggestions are outstanding."""
    confirmation: Confirmation | None = None
    """In the stage that confirms, what it trains again; None before all other trials have ended."""
    is_at_most: bool = False
    """Whether fewer trials may turn out to be needed than are waiting."""

    @property
    def total(self) -> int:
        """Number of the stage's trials, known or not."""
        return len(self.trials) + self.waiting + self.lost


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep. Equal work listed by two stages counts once."""

    stages: tuple[StagePlan, ...]

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """Trial id -> trial, in order of stages and cells."""
        known: dict[str, Trial] = {}
        for stage in self.stages:
            for trial in stage.trials:
                known.setdefault(trial.id, trial)
        return known

    @property
    def confirmation(self) -> Confirmation | None:
        """What is trained again; None where nothing is, or before all other trials have ended."""
        return next((stage.confirmation for stage in self.stages if stage.confirmation), None)

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """The settings that are trained again, as far as they are chosen."""
        return self.confirmation.contenders if self.confirmation else ()

    @cached_property
    def rules(self) -> dict[str, StopEarly]:
        """Trial id -> the rule that may stop it. A trial that any stage lists without a rule is trained to its end."""
        found: dict[str, StopEarly] = {}
        whole: set[str] = set()
        for planned in self.stages:
            for trial in planned.trials:
                if planned.stage.stop_early is None:
                    whole.add(trial.id)
                else:
                    found.setdefault(trial.id, planned.stage.stop_early)
        return {trial_id: rule for trial_id, rule in found.items() if trial_id not in whole}

    def counted(self, outcomes: Mapping[str, Outcome], max_seconds: float | None) -> dict[str, Outcome]:
        """The outcomes of trials that need not run any more."""
        return {id_: ended for id_, ended in outcomes.items() if ended.counts(self.rules.get(id_), max_seconds)}

    @property
    def is_at_most(self) -> bool:
        """Whether fewer trials than `total` may turn out to be needed."""
        return any(stage.is_at_most for stage in self.stages)

    @property
    def waiting(self) -> int:
        """Number of trials whose ids are not known yet."""
        return sum(stage.waiting for stage in self.stages)

    @property
    def lost(self) -> int:
        """Number of trials that can never run, because none of their possible parents finished."""
        return sum(stage.lost for stage in self.stages)

    @property
    def total(self) -> int:
        """Number of all trials, known or not."""
        return len(self.trials) + self.waiting + self.lost


WeightsDigests = Mapping[tuple[str, str], str]
"""(model, weights as the sweep names them) -> digest of their contents."""

Built = dict[Any, tuple[Trial, ...]]
"""What trials were made from -> the trials made for an earlier plan of the same sweep, which need not be made again."""


def make_plan(
    sweep: Sweep,
    data: str,
    outcomes: Mapping[str, Outcome],
    weights: WeightsDigests = MappingProxyType({}),
    suggestions: Suggestions = MappingProxyType({}),
    built: Built | None = None,
    folds: Sequence[str] = (),
) -> Plan:
    """Name every trial of the sweep that can be named now.

    A stage without `start_from` is known from the spec, or as far as a searcher has suggested its cells. The trials
    of a stage that starts from another are known group by group, as soon as all trials that a group chooses among have
    ended. Those that train the best settings again are known when they are suggested, after all others have ended.

    Args:
        sweep: what is asked for.
        data: fingerprint of the data.
        outcomes: trial id -> outcome of every trial that ended, without pruned ones that do not count in this sweep.
        weights: digests of the pretrained weights that the sweep names. KeyError where one is missing.
        suggestions: what searchers have suggested so far.
        built: remembers trials between plans of the same sweep, data and weights, which saves time and changes nothing.
        folds: fingerprint of each fold, where the sweep has folds.
    """
    if sweep.folds and len(folds) < sweep.folds.count:
        raise ResultsError("data.json does not say how the images are dealt into folds; run the sweep again")
    return _Planner(sweep, data, outcomes, weights, suggestions, {} if built is None else built, folds).plan()


@dataclass
class _Planner:
    """Plans stage by stage; a later stage may start from what is planned before it."""

    sweep: Sweep
    data: str
    outcomes: Mapping[str, Outcome]
    weights: WeightsDigests
    suggestions: Suggestions
    built: Built
    folds: Sequence[str]
    stages: dict[str, StagePlan] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Plan the stages that start from none first: any stage may say that a trial is trained to its end."""
        self.stages = {stage.name: StagePlan(stage, ()) for stage in self.sweep.stages}
        for stage in self.sweep.stages:
            if stage.start_from is None:
                self.stages[stage.name] = self._root_plan(stage)
        for stage in self.sweep.stages:
            if stage.start_from is not None:
                self.stages[stage.name] = self._child_plan(stage, stage.start_from)
        if self.sweep.confirm is not None:
            self.stages[CONFIRM.name] = self._confirm_plan(self.sweep.confirm)
        return Plan(tuple(self.stages.values()))

    def _root_plan(self, stage: Stage) -> StagePlan:
        if not stage.search.is_adaptive:
            known = self._once((stage.name,), lambda: _joined(self._root_trials(stage, cell) for cell in cells(stage)))
            return StagePlan(stage, known)
        name = root_study_id(self.sweep, stage, self.data, self.weights)
        study = self._study(name, stage, (), self._suggested_roots)
        waiting = (size(stage) - len(study.suggestions)) * _seeds_of(self.sweep, stage)
        return StagePlan(stage, _joined(study.trials), waiting, 0, (study,), self._typical(stage) if waiting else ())

    def _typical(self, stage: Stage) -> tuple[Trial, ...]:
        return self._once(
            (stage.name, "typical"), lambda: _joined(self._root_trials(stage, cell) for cell in typical_cells(stage))
        )

    def _once(self, key: tuple[Any, ...], make: Callable[[], tuple[Trial, ...]]) -> tuple[Trial, ...]:
        if key not in self.built:
            self.built[key] = make()
        return self.built[key]

    def _root_trials(self, stage: Stage, cell: Cell) -> tuple[Trial, ...]:
        seeds = (cell["seed"],) if "seed" in cell else self.sweep.replicates
        trials = []
        for seed, data in zip(seeds, self.folds if self.sweep.folds else [self.data] * len(seeds), strict=False):
            settings = self.sweep.settings({**cell, "seed": seed})
            digest = None if settings.weights == "none" else self.weights.get((settings.model, settings.weights))
            if digest is None and settings.weights != "none":
                raise ResultsError(f"data.json does not say which weights {settings.weights} of {settings.model} are")
            trials.append(Trial(stage.name, settings, data, weights=digest))
        return tuple(trials)

    def _suggested_roots(self, stage: Stage, suggestion: Cell) -> tuple[Trial, ...]:
        return self._root_trials(stage, cell_of(stage.space, suggestion))

    def _study(
        self, name: str, stage: Stage, group: tuple[Any, ...], make: Callable[[Stage, Cell], tuple[Trial, ...]]
    ) -> Study:
        suggested = tuple(self.suggestions.get(name, ()))[: stage.search.trials]
        if not all(can_suggest(stage.space, suggestion) for suggestion in suggested):
            raise ResultsError(f"studies/{name}.jsonl: a suggestion is no cell of stage {stage.name}; remove the file")
        trials = tuple(
            self._once((stage.name, name, index), functools.partial(make, stage, suggestion))
            for index, suggestion in enumerate(suggested)
        )
        return Study(name, stage, group, suggested, trials)

    def _child_plan(self, stage: Stage, start: StartFrom) -> StagePlan:
        parents = self.stages[start.stage]
        so_far = Plan(tuple(self.stages.values()))
        outcomes = so_far.counted(self.outcomes, self.sweep.train.max_seconds)
        of_group = groups(parents.trials, start.per)
        if parents.waiting and parents.stage.search.is_adaptive:
            # Any group may get more members: no group is complete before the last suggestion.
            chosen_at_most = _possible_groups(parents.stage, start.per, of_group) * _seeds_of(self.sweep, stage)
            return StagePlan(stage, (), size(stage) * chosen_at_most)
        trials: list[tuple[Trial, ...]] = []
        studies: list[Study] = []
        waiting = lost = 0
        for group, members in of_group.items():
            seeds = len({trial.settings.seed for trial in members})
            if any(trial.id not in outcomes for trial in members):
                waiting += size(stage) * seeds
                continue
            chosen = tuple(best_cell(members, outcomes, start.best, so_far.trials))
            lost += size(stage) * (seeds - len(chosen))
            if stage.search.is_adaptive and chosen:
                name = child_study_id(stage, map(self._lineage, chosen), self.data)
                study = self._study(name, stage, group, functools.partial(_suggested_children, chosen))
                studies.append(replace(study, parents=tuple(parent.id for parent in chosen)))
                trials += studies[-1].trials
                waiting += (size(stage) - len(studies[-1].suggestions)) * len(chosen)
            elif chosen:
                made = functools.partial(_children_of_cells, chosen, stage)
                trials.append(self._once((stage.name, *(parent.id for parent in chosen)), made))
        if parents.waiting or parents.lost:
            # Groups of a stage that is itself waiting cannot be counted: count all cells for each trial it waits for.
            waiting += size(stage) * parents.waiting
            lost += size(stage) * parents.lost
        return StagePlan(stage, _joined(trials), waiting, lost, tuple(studies))

    def _confirm_plan(self, confirm: Confirm) -> StagePlan:
        others = Plan(tuple(self.stages.values()))
        max_seconds = self.sweep.train.max_seconds
        outcomes = others.counted(self.outcomes, max_seconds)
        if others.waiting or any(trial_id not in outcomes for trial_id in others.trials):
            settings = sum(planned.total // _seeds_of(self.sweep, planned.stage) for planned in others.stages)
            return StagePlan(CONFIRM, (), self._confirmed_at_most(confirm, settings), is_at_most=True)
        found = confirmation(confirm, others.trials, outcomes, self.suggestions)
        if found.is_open:
            waiting = self._confirmed_at_most(confirm, len(found.settings))
            return StagePlan(CONFIRM, (), waiting, confirmation=found, is_at_most=True)
        ended = {id_: outcome for id_, outcome in self.outcomes.items() if outcome.counts(None, max_seconds)}
        trials, waiting, lost = ready_trials(found.contenders, ended)
        return StagePlan(CONFIRM, tuple(trials), waiting, lost, confirmation=found)

    def _confirmed_at_most(self, confirm: Confirm, settings: int) -> int:
        """Return the most trials that confirming can take: of the contenders, and of the settings they start from."""
        chosen = min(settings, MOST if confirm.contenders == "auto" else confirm.contenders)
        starts = 0
        for stage in self.sweep.stages:
            if stage.start_from is not None:
                parents, per = self.stages[stage.start_from.stage], stage.start_from.per
                is_root = parents.stage.start_from is None
                known = groups(parents.trials, per)
                starts += min(chosen, _possible_groups(parents.stage, per, known)) if is_root else chosen
        return (chosen + starts) * confirm.seeds

    def _lineage(self, trial: Trial) -> list[dict[str, Any]]:
        """List the settings that decide a trial's result, then those of the trial it started from, and so on."""
        line = [decided(trial)]
        known = (other for planned in self.stages.values() for other in planned.trials)
        parent = next((other for other in known if other.id == trial.parent_id), None)
        return line if parent is None else line + self._lineage(parent)


def _children(parents: tuple[Trial, ...], stage: Stage, cell: Cell) -> tuple[Trial, ...]:
    values = _typed(cell)
    return tuple(Trial(stage.name, parent.settings.changed(values), parent.data, parent.id) for parent in parents)


def _children_of_cells(parents: tuple[Trial, ...], stage: Stage) -> tuple[Trial, ...]:
    return _joined(_children(parents, stage, cell) for cell in cells(stage))


def _suggested_children(parents: tuple[Trial, ...], stage: Stage, suggestion: Cell) -> tuple[Trial, ...]:
    return _children(parents, stage, cell_of(stage.space, suggestion))


def _joined(parts: Iterable[Iterable[Trial]]) -> tuple[Trial, ...]:
    """Keep each trial once: draws and suggestions may repeat."""
    return tuple({trial.id: trial for part in parts for trial in part}.values())


def _seeds_of(sweep: Sweep, stage: Stage) -> int:
    """Return how many trials each cell of a stage becomes: one for each seed."""
    while stage.start_from is not None:
        stage = sweep.stage(stage.start_from.stage)
    return 1 if "seed" in stage.space else len(sweep.replicates)


def _possible_groups(stage: Stage, per: Iterable[str], known: Collection[Any]) -> int:
    """Return the most groups that a stage can have whose trials are not all known."""
    several = 1
    for axis in per:
        values = stage.space.get(axis)
        if values is not None:
            several *= size(stage) if values.kind in NUMERIC_KINDS else len(values.args)
    return max(len(known), min(several, size(stage)))


def _typed(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell's values in the types of the settings: `dropout: 0` becomes 0.0, so equal values give equal ids."""
    plain = {axis: value for axis, value in cell.items() if not axis.startswith(ARGS)}
    valid = Settings.model_validate(plain)
    return {axis: getattr(valid, axis) if axis in plain else value for axis, value in cell.items()}


def groups(trials: Iterable[Trial], per: Iterable[str]) -> dict[tuple[Any, ...], list[Trial]]:
    """Group trials by their values of the axes `per`, in order of appearance; one group without axes."""
    by_key: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        by_key.setdefault(tuple(trial.settings.value(axis) for axis in per), []).append(trial)
    return by_key


def best_cell(
    trials: Iterable[Trial],
    outcomes: Mapping[str, Outcome],
    metric: str,
    planned: Mapping[str, Trial] = MappingProxyType({}),
) -> list[Trial]:
    """Return the trials, one for each seed, of the setting with the best mean validation score; empty if none finished.

    A setting some of whose seeds did not finish loses to one that finished all; the earliest wins a tie.

    Args:
        trials: of all settings.
        outcomes: of every one of the trials.
        metric: one of `MEASURES`.
        planned: see `by_setting`.
    """
    best: list[Trial] = []
    best_score = score([], metric)
    for members in by_setting(trials, planned):
        done = [trial for trial in members if outcomes[trial.id].status is Status.DONE]
        reached = score([outcomes[trial.id] for trial in done], metric)
        if reached > best_score:
            best, best_score = done, reached
    return best


def by_setting(trials: Iterable[Trial], planned: Mapping[str, Trial] = MappingProxyType({})) -> list[list[Trial]]:
    """Group trials that differ in nothing but their seeds, in order of appearance.

    Args:
        trials: of one stage.
        planned: id -> trial; those that they start from, each seed from its own, are looked up here.
    """
    keys: dict[str, SettingKey] = {}
    found: dict[SettingKey, list[Trial]] = {}
    for trial in trials:
        found.setdefault(setting_key(trial, planned, keys), []).append(trial)
    return list(found.values())


def score(done: list[Outcome], metric: str) -> tuple[int, float]:
    """Return what settings are ranked by: the number of finished seeds, then the mean metric. More is better."""
    if not done:
        return 0, float("-inf")
    return len(done), sum(outcome.worth(metric) for outcome in done) / len(done)


def compared(sweep: Sweep, trial: Trial, start: SettingKey | str | None) -> tuple[Any, ...]:
    """Return a key that trials share if the rule that stops early compares them.

    They are of one stage and start from the same setting. Groups of which a later stage chooses the best separately are
    compared separately, so that each of those groups has a trial that finished.

    Args:
        sweep: that the trial belongs to.
        trial: of a stage with a rule.
        start: see `setting.start_key`.
    """
    starts = [stage.start_from for stage in sweep.stages if stage.start_from]
    axes = sorted({axis for found in starts if found.stage == trial.stage for axis in found.per})
    return (trial.stage, start, *(trial.settings.value(axis) for axis in axes))
