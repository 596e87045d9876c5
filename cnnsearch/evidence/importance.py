"""How much of the spread of scores each axis of a search explains: fANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014).

A random forest is fitted to the scores; an axis's importance is the share of the forest's variance over the searched
space that the axis explains alone. Optuna is imported when importances are asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsearch.stats import Estimate

LEAST_TRIALS = 20
"""Finished configurations needed. With fewer the forest fits noise: useless axes get a tenth of the variance."""
MOST_TRIALS = 1000
"""Trials drawn in one repetition, which keeps the time for 2,000 trials within seconds."""
TREES = 16
_DEPTH = 7
_REPETITIONS = 8
_DECOY = "a column of random numbers"


@dataclass(frozen=True)
class Importances:
    """Axes by importance, the largest first."""

    shares: Mapping[str, Estimate]
    """Axis -> share of the variance it explains alone, 0 to 1: mean, least and most over the repetitions."""
    noise: float
    """The most that a column of random numbers got in any repetition; shares up to it are no sign of an effect."""
    configurations: int
    """Number of finished configurations they were computed from."""

    @property
    def ranked(self) -> list[str]:
        """The axes, the most important first."""
        return list(self.shares)

    def stands_out(self, axis: str) -> bool:
        """Whether the axis got more than random numbers ever did, in every repetition."""
        return axis in self.shares and self.shares[axis].low > self.noise

    def is_likely(self, axis: str) -> bool:
        """Whether it got more than random numbers ever did, on average."""
        return axis in self.shares and self.shares[axis].value > self.noise


def importances(
    columns: Mapping[str, Sequence[float | None]], kinds: Mapping[str, int], scores: Sequence[float], *, seed: int = 0
) -> Importances | None:
    """Importance of each column for the scores; None with fewer than `LEAST_TRIALS` rows or without any spread.

    Each repetition draws rows with replacement, with another seed, and adds a column of random numbers.

    Args:
        columns: axis -> for each row its position from 0 to 1 on the scale that was searched, or its code from 0 to
            k - 1 on an unordered axis with k values. None, where the axis did not apply to the trial, is replaced by a
            random value, since it cannot have mattered.
        kinds: unordered axis -> k.
        scores: one for each row.
        seed: of all draws.
    """
    target = np.asarray(scores, dtype=np.float64)
    if len(target) < LEAST_TRIALS or not columns or float(np.ptp(target)) == 0:
        return None
    found = []
    for repetition in range(_REPETITIONS):
        rng = np.random.default_rng([seed, repetition])
        rows = rng.integers(0, len(target), min(len(target), MOST_TRIALS))
        table = {name: _filled(values, kinds.get(name), rng)[rows] for name, values in columns.items()}
        table[_DECOY] = rng.random(len(target))[rows]
        found.append(_fanova(table, kinds, target[rows], seed=int(rng.integers(2**31))))
    shares = {name: [one[name] for one in found] for name in columns}
    estimates = {name: Estimate(float(np.mean(s)), float(min(s)), float(max(s))) for name, s in shares.items()}
    ranked = dict(sorted(estimates.items(), key=lambda item: -item[1].value))
    return Importances(ranked, max(one[_DECOY] for one in found), len(target))


def _filled(values: Sequence[float | None], kinds: int | None, rng: np.random.Generator) -> NDArray[np.float64]:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    absent = np.isnan(numbers)
    drawn = rng.random(len(numbers)) if kinds is None else rng.integers(0, kinds, len(numbers)).astype(np.float64)
    return np.where(absent, drawn, numbers)


def _fanova(
    table: Mapping[str, NDArray[np.float64]], kinds: Mapping[str, int], target: NDArray[np.float64], *, seed: int
) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator

    if float(np.ptp(target)) == 0:  # all scores drawn are equal
        return dict.fromkeys(table, 0.0)
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(list(range(kinds[name]))) if name in kinds else FloatDistribution(0.0, 1.0)
        for name in table
    }
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(direction="maximize")
            cells = [_cell(table, kinds, index) for index in range(len(target))]
            study.add_trials(
                [
                    optuna.trial.create_trial(params=cell, distributions=distributions, value=float(score))
                    for cell, score in zip(cells, target, strict=True)
                ]
            )
            evaluator = FanovaImportanceEvaluator(n_trees=TREES, max_depth=_DEPTH, seed=seed)
            return {name: float(share) for name, share in evaluator.evaluate(study).items()}
    finally:
        optuna.logging.set_verbosity(verbosity)


def _cell(table: Mapping[str, NDArray[np.float64]], kinds: Mapping[str, int], index: int) -> dict[str, Any]:
    return {
        name: int(values[index]) if name in kinds else min(1.0, max(0.0, float(values[index])))
        for name, values in table.items()
    }
