"""Rounds of seeds are judged by the sweep's metric."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cnnsearch.confirming import UNKNOWN, Chooser
from cnnsearch.planning.confirm import Contender
from cnnsearch.planning.trial import Trial
from cnnsearch.scores import Predicted, score
from cnnsearch.spec.metric import METRICS
from cnnsearch.spec.settings import Settings

LABELS = np.repeat(np.arange(4), (60, 30, 15, 10))


class Folder:
    """The folder of a trial, which predicts with this accuracy."""

    def __init__(self, trial_id: str, accuracy: float) -> None:
        rng = np.random.default_rng([ord(letter) for letter in trial_id])
        right = rng.random(len(LABELS)) < accuracy
        chances = np.full((len(LABELS), 4), 0.1, np.float32)
        chances[np.arange(len(LABELS)), np.where(right, LABELS, (LABELS + 1) % 4)] = 0.7
        self.chances = chances

    def predictions(self) -> dict[tuple[str, str], Any]:
        return {("val", "best"): (self.chances.argmax(axis=1), self.chances.max(axis=1))}

    def probabilities(self) -> dict[str, Any]:
        return {"val": self.chances}


def contender(accuracy: float) -> Contender:
    trials = [Trial("confirm", Settings(seed=seed, lr=accuracy), "d" * 16) for seed in range(4)]
    return Contender((trials[0],), tuple((trial,) for trial in trials))


def chooser(metric: str, better: Contender, worse: Contender, labels: Any = LABELS) -> Chooser:
    accuracy = {trial.id: one.setting[0].settings.lr for one in (better, worse) for trial in one.again}
    here = SimpleNamespace(trial=lambda id_: Folder(id_, accuracy[id_]))
    dataset = SimpleNamespace(labels=labels, indices={"val": np.arange(len(labels))}, classes=list("abcd"))
    ready = SimpleNamespace(sweep=SimpleNamespace(metric=metric), dataset=dataset, results=SimpleNamespace(here=here))
    return Chooser(cast(Any, ready), 1.0)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "auroc", "brier"])
def test_the_better_one_by_the_metric_is_ahead(metric: str) -> None:
    better, worse = contender(0.9), contender(0.6)
    value, low, high = chooser(metric, better, worse).compare(better, worse, 4, 0.95)
    assert 0 < low < value < high

    def mean(one: Contender) -> float:
        found = []
        for trial in one.again:
            chances = Folder(trial.id, one.setting[0].settings.lr).chances
            found.append(score(metric, Predicted(LABELS, 4, chances.argmax(axis=1), chances.max(axis=1), chances)))
        return METRICS[metric].sign * float(np.mean([value for value in found if value is not None]))

    assert value == pytest.approx(mean(better) - mean(worse))


def test_of_too_few_images_of_a_class_nothing_is_known() -> None:
    better, worse = contender(0.9), contender(0.6)
    few = np.repeat(np.arange(4), (60, 30, 22, 3))
    assert chooser("macro_f1", better, worse, few).compare(better, worse, 4, 0.95) == UNKNOWN
    assert chooser("accuracy", better, worse, few).compare(better, worse, 4, 0.95) != UNKNOWN
