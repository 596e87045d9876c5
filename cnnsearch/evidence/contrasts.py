"""The best configurations of several sweeps against each other on the test images, with a verdict on each pair.

Sweeps tested on the same images are compared image by image, others as independent proportions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cnnsearch import stats
from cnnsearch.evidence import crossed
from cnnsearch.evidence.comparisons import LEAST_SEEDS, Comparison, Score
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.part import Part
from cnnsearch.evidence.verdicts import CLEAR, SUGGESTIVE, Verdict, judge, least_sure


class Entry(NamedTuple):
    """A sweep with its best configuration by validation, and the test accuracy of that configuration."""

    part: Part
    best: Configuration
    score: Score


@dataclass(frozen=True)
class Contrast:
    """Two entries compared: how far the more accurate one is ahead of the other."""

    ahead: Entry
    behind: Entry
    comparison: Comparison
    """Test accuracy of `ahead` minus that of `behind`."""
    is_paired: bool
    """Whether both were tested on the same images."""
    p_value: float
    """After Holm's correction over all pairs of entries."""

    @property
    def verdict(self) -> Verdict:
        """How sure the difference is; never "clear" if the two were tested on different images, which may be easier."""
        verdict = judge(self.comparison, self.p_value)
        return SUGGESTIVE if verdict == CLEAR and not self.is_paired else verdict


def entries(parts: Sequence[Part]) -> list[Entry]:
    """An entry for each sweep whose best configuration has a test accuracy, most accurate first."""
    found = [
        Entry(part, part.best, score)
        for part in parts
        if part.best is not None and (score := part.evidence.score(part.best, "test")) is not None
    ]
    return sorted(found, key=lambda entry: -entry.score.value)


def contrasts(ranked: Sequence[Entry]) -> list[Contrast]:
    """Compare the first entry with each other one.

    The correction counts all pairs of entries, because the test accuracy decided which entry is first.
    """
    pairs = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
    compared = [_compare(a, b) for a, b in pairs]
    adjusted = stats.holm([comparison.p_value if comparison.can_tell else 1.0 for comparison, _ in compared])
    return [
        Contrast(a, b, comparison, is_paired, p_value)
        for (a, b), (comparison, is_paired), p_value in zip(pairs, compared, adjusted, strict=True)
        if a is ranked[0]
    ]


def overall(found: Sequence[Contrast]) -> Verdict:
    """One verdict on the first entry against all others."""
    return least_sure([contrast.verdict for contrast in found])


def same_test_images(a: Part, b: Part) -> bool:
    """Whether both were tested on images of the same names and true classes."""
    return same_images(a.evidence, b.evidence, "test")


def same_images(a: Evidence, b: Evidence, split: str) -> bool:
    """Whether a split of both has images of the same names and true classes."""
    names = a.examples[split]
    return bool(names) and names == b.examples[split] and _true_classes(a, split) == _true_classes(b, split)


def _true_classes(evidence: Evidence, split: str) -> list[str]:
    return [evidence.classes[code] if code >= 0 else "" for code in evidence.labels[split]]


def newcombe(a: Score, b: Score) -> stats.Estimate:
    """Difference of two independent proportions with its 95 % interval, from their Wilson intervals.

    Method 10 of Newcombe (1998, Stat. Med. 17:873).
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return stats.Estimate(value, low, high)


def _compare(a: Entry, b: Entry) -> tuple[Comparison, bool]:
    tables = [entry.part.evidence.table(entry.best, "test") for entry in (a, b)]
    is_paired = same_test_images(a.part, b.part) and all(table is not None for table in tables)
    seeds = min(len(a.best.trial_ids), len(b.best.trial_ids))
    if tables[0] is not None and tables[1] is not None:
        of_a, of_b = a.part.evidence.condensed(tables[0]), b.part.evidence.condensed(tables[1])
        if seeds >= LEAST_SEEDS:
            found = crossed.difference(of_a, of_b) if is_paired else crossed.independent_difference(of_a, of_b)
            return Comparison(found.estimate, found.p_value, "seeds", 1, seeds), is_paired
        if is_paired:
            n_a, n_b = of_a.replicates, of_b.replicates
            estimate = stats.paired_difference(of_a.mean, of_b.mean)
            p_value = stats.sign_flip_exact(np.rint(of_a.mean * n_a * n_b - of_b.mean * n_a * n_b).astype(np.int64))
            return Comparison(estimate, p_value, "networks", 1, seeds), is_paired
    p_value = stats.fisher_exact(
        round(a.score.value * a.score.n), a.score.n, round(b.score.value * b.score.n), b.score.n
    )
    return Comparison(newcombe(a.score, b.score), p_value, "networks", 1, seeds), False
