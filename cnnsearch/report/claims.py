"""What a report says: findings and the answer, each a sentence with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from cnnsearch.evidence.verdicts import Verdict


@dataclass(frozen=True)
class Finding:
    """One thing that the sweep shows, or fails to show."""

    sentence: str
    verdict: Verdict
    anchor: str
    """Id of the section of the report that holds the evidence."""
    size: float = 0.0
    """The largest difference that it tells, by which findings are sorted."""


@dataclass(frozen=True)
class Answer:
    """The sweep's question answered in one sentence."""

    sentence: str
    verdict: Verdict
