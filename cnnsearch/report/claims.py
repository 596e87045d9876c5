"""What a sentence of a report is, and how its mark is decided.

Every comparison behind the sentences belongs to one family: Holm's correction covers all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.verdicts import Verdict, judge_all


@dataclass(frozen=True)
class Finding:
    """One thing that the sweep shows, or fails to show."""

    sentence: str
    verdict: Verdict
    anchor: str
    """Id of the section of the report that holds the evidence."""


@dataclass(frozen=True)
class Claim:
    """The comparisons behind a finding, and how to word it once they are judged together with those of all claims."""

    comparisons: tuple[Comparison, ...]
    tell: Callable[[Sequence[Verdict]], Finding]
    """Makes the finding, given one verdict for each comparison."""

    @property
    def size(self) -> float:
        """The largest difference among its comparisons."""
        return max((abs(comparison.difference.value) for comparison in self.comparisons), default=0.0)


@dataclass(frozen=True)
class Answer:
    """The sweep's question answered in one sentence."""

    sentence: str
    verdict: Verdict


def plain(sentence: str, verdict: Verdict, anchor: str) -> Claim:
    """Make a claim that rests on no comparison."""
    return Claim((), lambda _: Finding(sentence, verdict, anchor))


def tell_all(claims: Sequence[Claim]) -> list[Finding]:
    """Make the findings of these claims, with one correction for all their comparisons."""
    verdicts = iter(judge_all([comparison for claim in claims for comparison in claim.comparisons]))
    return [claim.tell([next(verdicts) for _ in claim.comparisons]) for claim in claims]
