"""Findings on unevenly large classes: where accuracy hides what a setting can do, and where it misleads."""

from __future__ import annotations

from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import CLEAR
from cnnsearch.report.claims import Finding
from cnnsearch.spec.metric import DEFAULT, METRICS
from cnnsearch.stats import Estimate
from cnnsearch.words import share


def recall_text(value: Estimate) -> str:
    """A mean recall over classes with its interval: "61.0 % (55.2–66.8)"."""
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f}–{100 * value.high:.1f})"


def of_uneven_classes(evidence: Evidence) -> list[Finding]:
    """That a setting works though its accuracy is no higher than that of always naming the largest class."""
    best = evidence.best
    if best is None or not evidence.beats_chance(best):
        return []
    score, balanced = evidence.accuracy(best), evidence.balanced(best)
    if evidence.metric.name == DEFAULT:
        score = evidence.score(best)
    if score is None or balanced is None:
        return []
    if score.low > evidence.chance:
        return _of_misleading(evidence, best, score, balanced[0])
    sentence = (
        f"The classes are uneven: always naming the largest would get {share(evidence.chance)} of the "
        f"{evidence.judged} images right, but the best setting finds the others too. Its mean recall over classes is "
        f"{recall_text(balanced[0])}, that of guessing {share(evidence.chance_score)}."
    )
    return [Finding(sentence, CLEAR, "all-settings")]


def _of_misleading(evidence: Evidence, best: Configuration, score: Score, recall: Estimate) -> list[Finding]:
    """That accuracy misleads: it is clearly above the mean recall over classes, so small classes are found less often.

    Other settings may be better at that; the report names the one that validation would choose by it.
    """
    if score.low <= recall.high:
        return []
    counts = evidence.class_counts(evidence.judged_on)
    sentence = (
        f"The classes are uneven, and accuracy misleads: the largest has {share(max(counts) / sum(counts))} of the "
        f"{evidence.judged} images. The best setting gets {score.text} of them right, but finds only "
        f"{recall_text(recall)} of a class on average."
    )
    if evidence.metric.name == DEFAULT:
        column = METRICS["balanced_accuracy"].measure
        known = [c for c in evidence.contenders if column in c.scores]
        other = max(known, key=lambda c: (c.scores[column], -c.order), default=best)
        if best in known and (higher := share(other.scores[column])) != (own := share(best.scores[column])):
            sentence += f" By balanced accuracy validation would choose {evidence.label(other)}"
            sentence += f" ({higher} instead of {own})."
        sentence += " With metric: balanced_accuracy or macro_f1 a sweep goes by all classes alike."
    return [Finding(sentence, CLEAR, "metrics")]
