"""What a report says: findings and the answer, each a sentence with its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cnnsearch.evidence.verdicts import Verdict

Kind = Literal["model", "search", "axis", "trouble", "stage", "overfitting", "chance", "divergence", "comparison"]
"""What a finding is about."""


@dataclass(frozen=True)
class Finding:
    """One thing that the sweep shows, or fails to show."""

    sentence: str
    verdict: Verdict
    anchor: str
    """Id of the section of the report that holds the evidence."""
    size: float = 0.0
    """The largest difference that it tells, by which findings are sorted."""
    kind: Kind = field(default="comparison", compare=False)


@dataclass(frozen=True)
class Answer:
    """The sweep's question answered in one sentence."""

    sentence: str
    verdict: Verdict
