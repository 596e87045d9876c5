"""Scores and differences between scores, each with its interval."""

from __future__ import annotations

from typing import NamedTuple

from cnnsearch import stats


class Score(NamedTuple):
    """An accuracy with its 95 % Wilson interval, from `n` examples."""

    value: float
    low: float
    high: float
    n: int

    @property
    def text(self) -> str:
        """In percent with its interval: "78.9 % (76.3–81.3)"."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}–{100 * self.high:.1f})"

    @classmethod
    def of(cls, value: float, n: int) -> Score:
        """Make the score of an accuracy over n examples. Rounding may have put a mean of several slightly above 1."""
        return cls(value, *stats.wilson(min(value, 1.0) * n, n), n)


class Comparison(NamedTuple):
    """How much more often A is right than B on the same test examples, averaged over `pairs` of networks."""

    difference: stats.Estimate
    """Its interval says how it would vary with other test examples or, if that is wider, with other seeds."""
    p_value: float
    """From an exact test over the examples; see `stats.sign_flip_exact`."""
    pairs: int
    seeds: int
    seeds_agree: bool
    """Whether the interval over seeds leaves out zero; true with one seed, which cannot disagree."""
    disagreement: float
    """Share of examples that exactly one side of a pair gets right."""
    networks: int = 1
    """Pairs of networks compared: settings times seeds."""
    ahead: int = 1
    """Pairs of networks in which A is ahead."""

    @property
    def is_consistent(self) -> bool:
        """Whether the difference repeats: over the seeds if there are several, else in every pair of networks.

        With one seed, only the pairs can show that an average difference is not due to one lucky network.
        """
        return self.seeds_agree and (self.seeds > 1 or self.ahead in (0, self.networks))


def over_seeds_too(over_images: stats.Estimate, over_seeds: stats.Estimate | None) -> tuple[stats.Estimate, bool]:
    """Return a difference with the wider of two intervals, and whether the one over seeds leaves out zero.

    `over_seeds` is None where there is only one seed.
    """
    if over_seeds is None:
        return over_images, True
    agree = over_seeds.low > 0 or over_seeds.high < 0
    if over_seeds.high - over_seeds.low > over_images.high - over_images.low:
        return stats.Estimate(over_images.value, over_seeds.low, over_seeds.high), agree
    return over_images, agree
