"""Findings on overfitting: where validation loss starts to rise, or that this cannot be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from cnnsearch.evidence.axes import main_stage
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict
from cnnsearch.report.claims import Finding
from cnnsearch.stats import LEAST_EPOCHS, LEAST_RISE
from cnnsearch.words import counted

_MOST_TURNED = 0.8
"""Share of trials from which on "overfitting starts" is clear."""


def of_overfitting(evidence: Evidence) -> list[Finding]:
    """Where validation loss turned in the main stage."""
    stage = main_stage(evidence) or ""
    models = {trial: s.model for s in evidence.stage(stage) for trial in s.trial_ids}
    models = {trial: model for trial, model in models.items() if len(evidence.curve(trial, "val_loss")[0])}
    if not models:
        return []
    turns = evidence.turns(list(models))
    last = max(int(evidence.curve(trial, "val_loss")[0][-1]) for trial in models)
    unit = "setting" if all(len(s.trial_ids) == 1 for s in evidence.stage(stage)) else "trial"
    if not turns:
        return [Finding(_no_turn_sentence(evidence, list(models), unit, last), CANNOT_TELL, "curves")]
    where = _where(len(turns), len(models), unit)
    verdict = CLEAR if len(turns) >= _MOST_TURNED * len(models) else SUGGESTIVE
    return [Finding(_turning_sentence(evidence, turns, models, where, last, verdict), verdict, "curves")]


def _where(some: int, number: int, unit: str) -> str:
    if number == 1:
        return ""
    if some < number:
        return f" in {some} of {counted(number, unit)}"
    return f" in both {unit}s" if some == 2 else f" in all {counted(number, unit)}"


def _no_turn_sentence(evidence: Evidence, trials: Sequence[str], unit: str, last: int) -> str:
    """Tell what is seen where no turn is sure, without a claim that networks do not overfit."""
    if last < LEAST_EPOCHS:
        few = counted(last, "epoch")
        return f"Whether overfitting starts cannot be told from {few}: that takes {LEAST_EPOCHS} or more."
    risen = evidence.risen(trials)
    if not risen:
        total = counted(len(trials), unit)
        which = "" if len(trials) == 1 else f" in {'either' if len(trials) == 2 else 'any'} of {total}"
        return f"Validation loss does not clearly rise again within {last} epochs{which}."
    times = median(risen.values())
    typical = "" if len(risen) == 1 else " in the median"
    height = f" ({times:.1f} times as high{typical})" if math.isfinite(times) else ""
    return (
        f"Whether overfitting starts within {last} epochs is not clear: validation loss ends more than "
        f"{100 * LEAST_RISE:.0f} % above its lowest{_where(len(risen), len(trials), unit)}{height}, but noise from "
        "epoch to epoch may explain that."
    )


def _turning_sentence(
    evidence: Evidence, turns: Mapping[str, int], models: Mapping[str, str], where: str, last: int, verdict: Verdict
) -> str:
    turned = list(dict.fromkeys(models[trial] for trial in turns))
    low, high = min(turns.values()), max(turns.values())
    by_model = [f"{model} {_span([turn for t, turn in turns.items() if models[t] == model])}" for model in turned]
    detail = f" ({', '.join(by_model)})" if len(turned) > 1 and low < high else ""
    when = f"at epoch {low}" if low == high else f"between epochs {low} and {high}"
    starts = "starts" if verdict == CLEAR else "may start"
    sentence = f"Overfitting {starts} {when} of {last}: there validation loss starts to rise{where}{detail}"
    growth = []
    falls = True
    for trial, turn in turns.items():
        epoch, loss = evidence.curve(trial, "val_loss")
        at_turn = float(loss[epoch == turn][0])
        if at_turn > 0:
            growth.append(float(loss[-1]) / at_turn)
        train_epoch, train = evidence.curve(trial, "train_loss")
        falls = falls and len(train) > 0 and float(train[-1]) < float(train[train_epoch <= turn][-1])
    if falls:
        sentence += " while training loss goes on falling"
    if growth:
        typical = "" if len(growth) == 1 else " (median)"
        sentence += f"; at the end it is {median(growth):.1f} times what it was there{typical}"
    more = len(evidence.risen([trial for trial in models if trial not in turns]))
    if more:
        sentence += f". In {more} more it ends above its lowest, which noise may explain"
    return sentence + "."


def _span(epochs: Sequence[int]) -> str:
    low, high = min(epochs), max(epochs)
    return f"{low}" if low == high else f"{low} to {high}"
