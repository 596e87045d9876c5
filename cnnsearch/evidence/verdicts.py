"""How sure one can be of a difference, and of several differences together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cnnsearch import stats
from cnnsearch.evidence.comparisons import Comparison

Verdict = Literal["clear", "suggestive", "cannot tell"]
CLEAR: Verdict = "clear"
SUGGESTIVE: Verdict = "suggestive"
CANNOT_TELL: Verdict = "cannot tell"


def judge(comparison: Comparison, adjusted: float) -> Verdict:
    """Clear: significant after correction, and it repeats. Suggestive: the interval of this difference excludes 0.

    `adjusted` is the comparison's p-value after the correction for all comparisons made with it.
    """
    if adjusted < stats.SIGNIFICANCE and comparison.is_consistent:
        return CLEAR
    excludes_zero = comparison.difference.low > 0 or comparison.difference.high < 0
    return SUGGESTIVE if excludes_zero and comparison.seeds_agree else CANNOT_TELL


def judge_all(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Verdicts on comparisons that belong to one family: Holm's correction covers all of them together."""
    adjusted = stats.holm([comparison.p_value for comparison in comparisons])
    return [judge(comparison, p_value) for comparison, p_value in zip(comparisons, adjusted, strict=True)]


def told_apart(comparisons: Sequence[Comparison]) -> list[bool]:
    """Which differences are significant after Holm's correction over all of these, and hold over the seeds."""
    adjusted = stats.holm([comparison.p_value for comparison in comparisons])
    return [
        p_value < stats.SIGNIFICANCE and comparison.seeds_agree
        for comparison, p_value in zip(comparisons, adjusted, strict=True)
    ]


def is_told_apart(comparison: Comparison) -> bool:
    """Whether a difference that stands alone is significant and holds over the seeds."""
    return told_apart([comparison])[0]


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict on several comparisons: clear or "cannot tell" only where each of them is, else suggestive."""
    if set(verdicts) == {CLEAR}:
        return CLEAR
    return CANNOT_TELL if set(verdicts) == {CANNOT_TELL} else SUGGESTIVE


def least_sure(verdicts: Sequence[Verdict]) -> Verdict:
    """The least sure of several verdicts; "cannot tell" where there are none."""
    return next((v for v in (CANNOT_TELL, SUGGESTIVE) if v in verdicts), CLEAR if verdicts else CANNOT_TELL)
