"""Which trials' weights are kept. Pure: what a later stage or command needs is never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cnnsearch.planning.plan import Plan, StagePlan, by_setting, groups, score
from cnnsearch.planning.trial import Outcome, Trial
from cnnsearch.spec.stage import Stage
from cnnsearch.spec.sweep import Sweep

METRICS = ("val_accuracy", "val_loss")


def choices(sweep: Sweep, stage: Stage) -> set[tuple[tuple[str, ...], str]]:
    """Return the (axes, metric) by which the best of a stage are chosen: by later stages, and for each model."""
    starts = [other.start_from for other in sweep.stages]
    later = {(start.per, start.best) for start in starts if start is not None and start.stage == stage.name}
    return later | {(("model",), metric) for metric in (*METRICS, sweep.measure)}


def needed(sweep: Sweep, plan: Plan, outcomes: Mapping[str, Outcome]) -> set[str]:
    """Return the ids of the trials whose weights are, or may yet be, needed.

    They are the best setting so far of every group that something chooses from, the settings that have seeds still to
    end, and the trials these started from, since a fine-tuned trial keeps only the weights that its training changed.
    """
    kept: set[str] = set()
    for planned in plan.stages:
        for per, metric in choices(sweep, planned.stage):
            for settings in _by_group(planned, per, plan.trials):
                kept |= {trial.id for trial in _contenders(settings, outcomes, metric)}
    parents = {trial.id: trial.parent_id for trial in plan.trials.values()}
    for contender in plan.contenders:
        parents |= {trial.id: trial.parent_id for line in contender.lines for trial in line}
    for trial_id in list(kept):
        parent = parents.get(trial_id)
        while parent is not None and parent not in kept:
            kept.add(parent)
            parent = parents.get(parent)
    return kept


def _by_group(planned: StagePlan, per: tuple[str, ...], trials: Mapping[str, Trial]) -> list[list[Sequence[Trial]]]:
    """Return the settings of a stage, group by group. Those that are confirmed may start from a trial for each seed."""
    if planned.confirmation is None:
        return [[*by_setting(group, trials)] for group in groups(planned.trials, per).values()]
    confirmed = {contender.again[0].id: contender.again for contender in planned.confirmation.contenders}
    firsts = groups((again[0] for again in confirmed.values()), per)
    return [[confirmed[first.id] for first in group] for group in firsts.values()]


def _contenders(settings: Iterable[Sequence[Trial]], outcomes: Mapping[str, Outcome], metric: str) -> list[Trial]:
    contenders: list[Trial] = []
    best: list[Trial] = []
    best_score = score([], metric)
    for members in settings:
        if any(trial.id not in outcomes for trial in members):
            contenders += members
            continue
        done = [trial for trial in members if outcomes[trial.id].is_comparable]
        reached = score([outcomes[trial.id] for trial in done], metric)
        if reached > best_score:
            best, best_score = done, reached
    return contenders + best
