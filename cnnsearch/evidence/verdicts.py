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


def judge(comparison: Comparison, adjusted: float, significance: float = stats.SIGNIFICANCE) -> Verdict:
    """Clear: significant after the correction. Suggestive: the interval of this difference alone excludes 0.

    Neither where nothing was repeated that the statement is about: one network of each setting says nothing about
    settings, however many images it answered.

    Args:
        comparison: what is judged.
        adjusted: its p-value after the correction for all comparisons made with it.
        significance: the error rate of all of those together.
    """
    if not comparison.can_tell:
        return CANNOT_TELL
    if adjusted < significance:
        return CLEAR
    return SUGGESTIVE if comparison.excludes_zero else CANNOT_TELL


def judge_all(comparisons: Sequence[Comparison], significance: float = stats.SIGNIFICANCE) -> list[Verdict]:
    """Verdicts on comparisons that belong to one family: Holm's correction covers those that can tell anything."""
    able = [comparison.p_value for comparison in comparisons if comparison.can_tell]
    adjusted = iter(stats.holm(able))
    return [
        judge(comparison, next(adjusted) if comparison.can_tell else 1.0, significance) for comparison in comparisons
    ]


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict on several comparisons: clear or "cannot tell" only where each of them is, else suggestive."""
    if set(verdicts) == {CLEAR}:
        return CLEAR
    return CANNOT_TELL if set(verdicts) == {CANNOT_TELL} else SUGGESTIVE


def least_sure(verdicts: Sequence[Verdict]) -> Verdict:
    """The least sure of several verdicts; "cannot tell" where there are none."""
    return next((v for v in (CANNOT_TELL, SUGGESTIVE) if v in verdicts), CLEAR if verdicts else CANNOT_TELL)
