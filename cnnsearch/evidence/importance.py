"""How much of the spread of scores each axis of a search explains: fANOVA (Hutter, Hoos & Leyton-Brown, ICML 2014).

A random forest is fitted to the scores; an axis's importance is the share of the forest's variance over the searched
space that the axis explains alone. Whether an axis matters at all is a test of its own, against permuted scores.
Optuna is imported when importances are asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cnnsearch.stats import SIGNIFICANCE, Estimate

LEAST_TRIALS = 20
"""Finished configurations needed. With fewer the forest fits noise: useless axes get a tenth of the variance."""
MOST_TRIALS = 1000
"""Trials drawn in one repetition, which keeps the time for 2,000 trials within seconds."""
TREES = 16
_DEPTH = 7
_REPETITIONS = 8
_DECOY = "a column of random numbers"
_PERMUTATIONS = 1999
_TOGETHER = 2**21
"""Numbers of permuted scores that are computed at a time."""
_SURE = 0.01
_DEGREE = 3


@dataclass(frozen=True)
class Importances:
    """Axes by importance, the largest first."""

    shares: Mapping[str, Estimate]
    """Axis -> share of the variance it explains alone, 0 to 1: mean, least and most over the repetitions."""
    noise: float
    """The most that a column of random numbers got in any repetition; shares up to it are no sign of an effect."""
    p_values: Mapping[str, float]
    """Axis -> how often permuted scores follow any axis as closely as the scores follow this one."""
    configurations: int
    """Number of finished configurations they were computed from."""

    @property
    def ranked(self) -> list[str]:
        """The axes, the most important first."""
        return list(self.shares)

    def stands_out(self, axis: str) -> bool:
        """Whether it matters: p < 1 %, and in every repetition it got more than random numbers ever did."""
        return axis in self.shares and self.p_values[axis] < _SURE and self.shares[axis].low > self.noise

    def is_likely(self, axis: str) -> bool:
        """Whether it may matter: p < 5 %, and on average it got more than random numbers ever did."""
        return axis in self.shares and self.p_values[axis] < SIGNIFICANCE and self.shares[axis].value > self.noise


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
    p_values = _against_permuted(columns, kinds, target, np.random.default_rng([seed, _REPETITIONS]))
    return Importances(ranked, max(one[_DECOY] for one in found), p_values, len(target))


def _against_permuted(
    columns: Mapping[str, Sequence[float | None]],
    kinds: Mapping[str, int],
    target: NDArray[np.float64],
    rng: np.random.Generator,
) -> dict[str, float]:
    """For each axis, how often scores in random order follow any axis as closely (Westfall & Young 1993, max T).

    To fit forests to thousands of permutations would take minutes. What is compared is the share of the variance of the
    ranks that a cubic in the axis's position explains, or the mean of each of its words, among the trials in which the
    axis has a part; as the p-value of its F-test, so that axes with more coefficients do not weigh more.
    """
    from scipy.stats import rankdata  # it takes half a second to import, and only searches need it

    ranks = rankdata(target)
    parts, left = [], 1 + _PERMUTATIONS
    while left:  # in portions: of very many trials, all permutations together would take gigabytes
        some = min(left, max(1, _TOGETHER // len(ranks)))
        orders = [ranks if left - one > _PERMUTATIONS else rng.permutation(ranks) for one in range(some)]
        scores = np.array(orders).T  # [rows, permutations]
        parts.append(np.array([_surprise(values, kinds.get(name), scores) for name, values in columns.items()]))
        left -= some
    surprise = np.concatenate(parts, axis=1)
    most = surprise[:, 1:].max(axis=0)
    return {
        name: float(1 + np.sum(most >= own[0] - 1e-9)) / (1 + _PERMUTATIONS)
        for name, own in zip(columns, surprise, strict=True)
    }


def _surprise(values: Sequence[float | None], kinds: int | None, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log p of the F-test that the axis explains each column of scores; 0 where it has too few trials to tell."""
    rows = [index for index, value in enumerate(values) if value is not None]
    known = np.array([values[index] for index in rows], dtype=np.float64)
    different = np.unique(known)
    if kinds is None:
        terms = known[:, None] ** np.arange(1, 1 + min(_DEGREE, len(different) - 1))
    else:
        terms = (known[:, None] == different[1:]).astype(np.float64)
    used, rest = terms.shape[1], len(rows) - 1 - terms.shape[1]
    if used == 0 or rest < used + 1:
        return np.zeros(scores.shape[1])
    basis = np.linalg.qr(terms - terms.mean(axis=0))[0]
    own = scores[rows] - scores[rows].mean(axis=0)
    total = np.maximum(np.sum(own**2, axis=0), np.finfo(np.float64).tiny)
    explained = np.clip(np.sum((basis.T @ own) ** 2, axis=0) / total, 0.0, 1.0)
    p_values = special.betainc(rest / 2, used / 2, 1 - explained)
    surprise: NDArray[np.float64] = -np.log(np.maximum(p_values, np.finfo(np.float64).tiny))
    return surprise


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
