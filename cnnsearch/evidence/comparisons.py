"""Scores and differences between scores, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from cnnsearch import stats
from cnnsearch.evidence.crossed import Crossed
from cnnsearch.spec.confirm import LEAST_SEEDS

__all__ = ["LEAST_PAIRS", "LEAST_SEEDS", "Basis", "Comparison", "Score"]

LEAST_PAIRS = 4
"""Fewest matched pairs of settings from which something can be said of the axis in which they differ."""

Basis = Literal["pairs", "seeds", "networks"]


class Score(NamedTuple):
    """A score with its 95 % interval, from `n` examples: an accuracy, or the metric of the sweep."""

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1
    """Networks that it is the mean of. From `LEAST_SEEDS` on the interval covers other seeds, too."""
    is_share: bool = True
    """Whether people read it in percent."""
    unit: str = "seed"
    """What these networks differ in: see `Recorded.unit`."""

    @property
    def text(self) -> str:
        """In percent with its interval: "78.9 % (76.3–81.3)"; as a number where it is no share."""
        if not self.is_share:
            return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"
        return in_percent(self.value, self.low, self.high)

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval says how far other seeds could move the score, too."""
        return self.seeds >= LEAST_SEEDS

    @classmethod
    def of(cls, value: float, n: int, seeds: int = 1) -> Score:
        """Make the score of an accuracy over n examples, with Wilson's interval.

        Rounding may have put a mean of several slightly above 1.
        """
        return cls(value, *stats.wilson(min(value, 1.0) * n, n), n, seeds)


def in_percent(value: float, low: float, high: float, decimals: int = 1) -> str:
    """A share with its interval: "78.9 % (76.3–81.3)", with more decimals where these do not tell the three apart."""
    shown = [[f"{100 * number:.{digits}f}" for number in (value, low, high)] for digits in range(decimals, 4)]
    texts = next((three for three in shown if three[1] != three[2]), shown[0])
    return f"{texts[0]} % ({texts[1]}–{texts[2]})"


class Comparison(NamedTuple):
    """How much more often A is right than B on the same test examples, averaged over `pairs` of settings.

    Of a sweep with another metric: by how much A is better by that.
    """

    difference: stats.Estimate
    p_value: float
    """Two-sided."""
    basis: Basis
    """What was repeated, so that the interval covers it beside the examples: matched pairs of settings, or seeds.
    "networks": nothing was repeated often enough, and the interval says only how these networks would do on other
    examples.
    """
    pairs: int
    """Pairs of settings compared."""
    seeds: int
    """Seeds of the setting that has fewest."""
    ahead: int = 1
    """In how many pairs A is ahead, their seeds averaged."""
    between: float = 0.0
    """The part of the variance that more seeds, or more pairs, make smaller."""
    over_images: float = 0.0
    """The part of the variance that more images make smaller."""
    of_networks: bool = False
    """Whether it is a statement about these networks, so that nothing needs to be repeated."""
    unit: str = "seed"
    """What the networks of a setting differ in: see `Recorded.unit`."""

    @classmethod
    def of(
        cls, means: Sequence[tuple[float, float]], found: Crossed, basis: Basis, seeds: int, unit: str = "seed"
    ) -> Comparison:
        """Add what else a sentence tells: how many were compared, and how often A is ahead by its mean."""
        return cls(
            difference=found.estimate,
            p_value=found.p_value,
            basis=basis,
            pairs=len(means),
            seeds=seeds,
            ahead=sum(a > b for a, b in means),
            between=found.between,
            over_images=found.over_images,
            unit=unit,
        )

    @property
    def can_tell(self) -> bool:
        """Whether it can support a statement at all, given a large enough difference."""
        return self.of_networks or self.basis != "networks"

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0
