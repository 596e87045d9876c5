"""Two results folders of like sweeps: which settings both have, and how much more accurate each is in the second.

The settings are compared on the same images where both were judged on the same ones, and within the seeds that both
have. One error rate covers all settings and the mean over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cnnsearch import stats
from cnnsearch.evidence import crossed
from cnnsearch.evidence.comparisons import LEAST_PAIRS, LEAST_SEEDS, Comparison
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.contrasts import newcombe, same_images
from cnnsearch.evidence.crossed import Answered
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import CLEAR, SUGGESTIVE, Verdict, judge_all
from cnnsearch.spec.confirm import CONFIRM

Paired = Literal["seeds and images", "images", "nothing"]
"""What two sides of a difference share, so that its luck is taken off."""
Tables = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Right answers of A and of B, each [seeds, images]."""


@dataclass(frozen=True)
class Pair:
    """A setting that both folders have."""

    a: Configuration
    b: Configuration

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that it has in both."""
        return tuple(seed for seed in self.a.seeds if seed in self.b.seeds)


@dataclass(frozen=True)
class Counterparts:
    """The settings of two folders."""

    pairs: list[Pair]
    only_a: list[Configuration]
    only_b: list[Configuration]


@dataclass(frozen=True)
class Held:
    """B held against A: one setting, or the mean over all that both have."""

    pair: Pair | None
    """None: the mean over all of them."""
    comparison: Comparison
    """Accuracy of B minus that of A."""
    paired: Paired
    verdict: Verdict
    same_answers: bool
    """Whether both are right on the same images, seed by seed."""

    @property
    def is_regression(self) -> bool:
        """Whether B is worse beyond what the evidence allows."""
        return self.verdict == CLEAR and self.comparison.difference.value < 0


def counterparts(a: Evidence, b: Evidence) -> Counterparts:
    """Match the settings of two folders, in the order of the first.

    Settings match where all their hyperparameters do, and those of what they start from. Where two stages of a folder
    have the same setting, the stages' names decide.
    """
    found: dict[str, Configuration] = {}
    taken: set[str] = set()
    for named in (True, False):
        left: dict[object, list[Configuration]] = {}
        for one in b.configurations:
            if one.key not in taken:
                left.setdefault(_cell(b, one, named), []).append(one)
        for one in a.configurations:
            if one.key not in found and (others := left.get(_cell(a, one, named))):
                found[one.key] = others.pop(0)
                taken.add(found[one.key].key)
    pairs = [Pair(one, found[one.key]) for one in a.configurations if one.key in found]
    only_a = [one for one in a.configurations if one.key not in found]
    return Counterparts(pairs, only_a, [one for one in b.configurations if one.key not in taken])


def _cell(evidence: Evidence, one: Configuration, named: bool) -> tuple[object, ...]:
    """What a setting shares with its counterpart; with the stage's name if `named`."""
    steps: list[object] = [one.stage if named else one.stage == CONFIRM.name]
    seen: set[str] = set()
    at: Configuration | None = one
    while at is not None and at.key not in seen:
        seen.add(at.key)
        steps.append(tuple({**at.values, "precision": _precision(evidence, at)}.items()))
        at = evidence.by_key.get(at.parent) if at.parent else None
    return tuple(steps)


def _precision(evidence: Evidence, one: Configuration) -> object:
    """The precision that was asked for: what `auto` came to is the machine's, as the number of threads is."""
    sweep = evidence.tables.sweep
    is_named = sweep.train.precision != "auto" or any("precision" in stage.space for stage in sweep.stages)
    return one.values["precision"] if is_named else "auto"


def judged_split(a: Evidence, b: Evidence) -> Literal["val", "test"]:
    """The images on which two folders are compared: test, or validation while the test set of either is sealed."""
    return "val" if a.tables.is_sealed or b.tables.is_sealed else "test"


def held(a: Evidence, b: Evidence, pairs: Sequence[Pair]) -> tuple[Held | None, list[Held]]:
    """Hold the settings of B against those of A.

    Returns the mean over all settings, with fewer than `LEAST_PAIRS` or on different images None; and each setting
    whose accuracy both have. Verdicts are corrected for all of these together (Holm).
    """
    split = judged_split(a, b)
    are_same = same_images(a, b, split)
    compared = [(pair, found) for pair in pairs if (found := _compared(a, b, pair, split, are_same)) is not None]
    whole = _mean(a, b, pairs, split) if are_same else None
    rows = [(None, whole), *compared] if whole is not None else compared
    verdicts = judge_all([found.comparison for _, found in rows])
    judged = [
        Held(pair, found.comparison, found.paired, _capped(verdict, are_same), found.same)
        for (pair, found), verdict in zip(rows, verdicts, strict=True)
    ]
    return (judged[0], judged[1:]) if whole is not None else (None, judged)


def _capped(verdict: Verdict, are_same: bool) -> Verdict:
    """Of different images one set may be easier, which no number of seeds shows."""
    return SUGGESTIVE if verdict == CLEAR and not are_same else verdict


@dataclass(frozen=True)
class _Compared:
    comparison: Comparison
    paired: Paired
    same: bool = False


def _compared(a: Evidence, b: Evidence, pair: Pair, split: str, are_same: bool) -> _Compared | None:
    tables = _tables(a, b, pair, split)
    seeds = min(len(pair.a.seeds), len(pair.b.seeds))
    if tables is None:
        return _of_scores(a, b, pair, split, seeds)
    if not are_same:
        if seeds < LEAST_SEEDS:
            return _of_scores(a, b, pair, split, seeds)
        found = crossed.independent_difference(b.condensed(tables[1]), a.condensed(tables[0]))
        return _Compared(Comparison(found.estimate, found.p_value, "seeds", 1, seeds), "nothing")
    same = pair.a.seeds == pair.b.seeds and np.array_equal(*tables)
    if len(pair.seeds) >= LEAST_SEEDS:
        of_a, of_b = _of_seeds(pair, tables)
        found = crossed.differs_from_zero((b if b.folds else a).condensed(of_b - of_a))
        comparison = Comparison(found.estimate, found.p_value, "seeds", 1, len(pair.seeds))
        return _Compared(comparison, "seeds and images", same)
    if seeds >= LEAST_SEEDS:
        found = crossed.difference(b.condensed(tables[1]), a.condensed(tables[0]))
        return _Compared(Comparison(found.estimate, found.p_value, "seeds", 1, seeds), "images", same)
    by_image = [table.mean(axis=0) for table in tables]
    whole = len(tables[0]) * len(tables[1])
    p_value = stats.sign_flip_exact(np.rint((by_image[1] - by_image[0]) * whole).astype(np.int64))
    estimate = stats.paired_difference(by_image[1], by_image[0])
    return _Compared(Comparison(estimate, p_value, "networks", 1, seeds), "images", same)


def _tables(a: Evidence, b: Evidence, pair: Pair, split: str) -> Tables | None:
    if a.is_by_fold(split) or b.is_by_fold(split):  # a row is a repeat there, and may be of other images
        return None
    of_a, of_b = a.table(pair.a, split), b.table(pair.b, split)
    return None if of_a is None or of_b is None else (of_a, of_b)


def _of_seeds(pair: Pair, tables: Tables) -> Tables:
    """The rows of the seeds that both sides have."""
    of_a = tables[0][[pair.a.seeds.index(seed) for seed in pair.seeds]]
    return of_a, tables[1][[pair.b.seeds.index(seed) for seed in pair.seeds]]


def _of_scores(a: Evidence, b: Evidence, pair: Pair, split: str, seeds: int) -> _Compared | None:
    """Compare by scores alone, where answers are not recorded or images differ: it supports no statement."""
    scores = a.score(pair.a, split), b.score(pair.b, split)
    if scores[0] is None or scores[1] is None:
        return None
    counts = [(round(score.value * score.n), score.n) for score in scores if score is not None]
    p_value = stats.fisher_exact(*counts[1], *counts[0])
    return _Compared(Comparison(newcombe(scores[1], scores[0]), p_value, "networks", 1, seeds), "nothing")


def _mean(a: Evidence, b: Evidence, pairs: Sequence[Pair], split: str) -> _Compared | None:
    """The mean over all settings, each of which is one repetition; None with too few, or without answers."""
    known = [(pair, tables) for pair in pairs if (tables := _tables(a, b, pair, split)) is not None]
    if len(known) < LEAST_PAIRS:
        return None
    sides = [_of_seeds(pair, tables) if pair.seeds else tables for pair, tables in known]
    found = crossed.differs_from_zero(Answered.of(np.stack([y.mean(axis=0) - x.mean(axis=0) for x, y in sides])))
    fewest = min(min(len(pair.a.seeds), len(pair.b.seeds)) for pair, _ in known)
    same = all(pair.a.seeds == pair.b.seeds and np.array_equal(*tables) for pair, tables in known)
    comparison = Comparison(found.estimate, found.p_value, "pairs", len(known), fewest)
    return _Compared(comparison, "seeds and images" if all(pair.seeds for pair, _ in known) else "images", same)
