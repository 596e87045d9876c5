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
        """An accuracy over n examples; a mean of several may be a hair above 1."""
        return cls(value, *stats.wilson(min(value, 1.0) * n, n), n)


class Comparison(NamedTuple):
    """How much more often A is right than B on the same test examples, averaged over `pairs` of networks."""

    difference: stats.Estimate
    """The interval covers other test examples; with two seeds or more, the wider of that and the one over seeds."""
    p_value: float
    """Exact, over examples; see `stats.sign_flip_exact`."""
    pairs: int
    seeds: int
    seeds_agree: bool
    """Whether the interval over seeds leaves out zero; true with one seed, which cannot disagree."""
    disagreement: float
    """Share of examples that exactly one side of a pair gets right."""
    networks: int = 1
    """Pairs of networks compared: settings times seeds."""
    ahead: int = 1
    """Of those, the pairs in which A is ahead."""

    @property
    def is_consistent(self) -> bool:
        """Whether the difference repeats: over seeds where there are several, else over every pair of networks.

        Without several seeds nothing else says that an average difference is not one lucky network's.
        """
        return self.seeds_agree and (self.seeds > 1 or self.ahead in (0, self.networks))


def over_seeds_too(over_images: stats.Estimate, over_seeds: stats.Estimate | None) -> tuple[stats.Estimate, bool]:
    """A difference with the wider of two intervals, and whether the one over seeds leaves out zero.

    `over_seeds` is None where there is only one seed.
    """
    if over_seeds is None:
        return over_images, True
    agree = over_seeds.low > 0 or over_seeds.high < 0
    if over_seeds.high - over_seeds.low > over_images.high - over_images.low:
        return stats.Estimate(over_images.value, over_seeds.low, over_seeds.high), agree
    return over_images, agree
