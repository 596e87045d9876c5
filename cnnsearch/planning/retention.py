"""Which trials' weights are kept. Pure: what a later stage or command needs is never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cnnsearch.planning.plan import Plan, by_setting, groups, score
from cnnsearch.planning.trial import Outcome, Trial
from cnnsearch.spec.stage import Stage
from cnnsearch.spec.sweep import Sweep

METRICS = ("val_accuracy", "val_loss")


def choices(sweep: Sweep, stage: Stage) -> set[tuple[tuple[str, ...], str]]:
    """Return the (axes, metric) by which the best of a stage are chosen: by later stages, and for each model."""
    starts = [other.start_from for other in sweep.stages]
    later = {(start.per, start.best) for start in starts if start is not None and start.stage == stage.name}
    return later | {(("model",), metric) for metric in METRICS}


def needed(sweep: Sweep, plan: Plan, outcomes: Mapping[str, Outcome]) -> set[str]:
    """Return the ids of the trials whose weights are, or may yet be, needed.

    They are the best setting so far of every group that something chooses from, the settings that have seeds still to
    end, and the trials these started from, since a fine-tuned trial keeps only the weights that its training changed.
    """
    kept: set[str] = set()
    for planned in plan.stages:
        for per, metric in choices(sweep, planned.stage):
            for group in groups(planned.trials, per).values():
                kept |= {trial.id for trial in _contenders(group, outcomes, metric)}
    parents = {trial.id: trial.parent_id for trial in plan.trials.values()}
    for trial_id in list(kept):
        parent = parents.get(trial_id)
        while parent is not None and parent not in kept:
            kept.add(parent)
            parent = parents.get(parent)
    return kept


def _contenders(trials: Iterable[Trial], outcomes: Mapping[str, Outcome], metric: str) -> list[Trial]:
    contenders: list[Trial] = []
    best: list[Trial] = []
    best_score = score([], metric)
    for members in by_setting(trials):
        if any(trial.id not in outcomes for trial in members):
            contenders += members
            continue
        done = [trial for trial in members if outcomes[trial.id].is_comparable]
        reached = score([outcomes[trial.id] for trial in done], metric)
        if reached > best_score:
            best, best_score = done, reached
    return contenders + best
