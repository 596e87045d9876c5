"""Differences and settings as reports word them."""

from __future__ import annotations

import re

from cnnsearch.evidence.comparisons import Comparison, Score
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.spec.axis_words import Value, format_value
from cnnsearch.spec.metric import DEFAULT
from cnnsearch.stats import Estimate
from cnnsearch.words import number_word, share, signed

_LEVEL = 1e-9


def points(difference: Estimate, sign: int = 1) -> str:
    """A difference of accuracies with its interval: "2.7 points (0.4 to 5.0)". `sign` -1 turns it around.

    Of another metric it says how much better one is: a point is 0.01. With more decimals where one would make a
    difference look like none.
    """
    low, high = sorted((sign * difference.low, sign * difference.high))
    value = sign * difference.value
    is_level = abs(value) < _LEVEL
    decimals = 1 if is_level else next((d for d in (1, 2) if round(100 * value, d)), 3)
    return f"{signed(100 * value, decimals)} points ({signed(100 * low, decimals)} to {signed(100 * high, decimals)})"


def reaches(evidence: Evidence, score: Score) -> str:
    """What a setting reaches: "gets 78.9 % (76.3–81.3) of 1,000 test images right"; of another metric, its value."""
    if evidence.metric.name == DEFAULT:
        return f"gets {score.text} of {score.n:,} {evidence.judged} images right"
    return f"reaches a {evidence.judged_by} of {score.text} on {score.n:,} images"


def repeated(comparison: Comparison) -> str:
    """What a difference is the mean over: " on average over 8 matched settings", " over 5 seeds"; else empty."""
    if comparison.pairs > 1:
        return f" on average over {comparison.pairs} matched settings"
    return f" over {comparison.seeds} {comparison.unit}s each" if comparison.seeds > 1 else ""


def chance_text(evidence: Evidence) -> str:
    """What settings are held against where they may do no better than chance: "10 %"."""
    text = share(evidence.chance_score)
    return text if evidence.chance_score == evidence.chance else f"a mean recall over classes of {text}"


def trained_layers(fine_tune: Value) -> str:
    """The layers that a fine-tuning mode trains: "the last layer alone", "all layers"."""
    if fine_tune == "head":
        return "the last layer alone"
    if fine_tune == "full":
        return "all layers"
    match = re.fullmatch(r"last-(\d+)-convs", str(fine_tune))
    if match is None:
        return format_value(fine_tune)
    convolutions = "convolution" if match[1] == "1" else f"{number_word(int(match[1]))} convolutions"
    return f"the last {convolutions} as well as the last layer"


def in_words(evidence: Evidence, configuration: Configuration) -> str:
    """A setting inside a sentence: its label, or the layers it trains where settings differ in nothing else."""
    if evidence.varying == ["fine_tune"]:
        return f"training {trained_layers(configuration.values['fine_tune'])}"
    return in_label(evidence, configuration)


def in_label(evidence: Evidence, configuration: Configuration) -> str:
    """A setting's label without a colon, for sentences that have their own."""
    return evidence.label(configuration).replace("fine-tuning: ", "fine-tuning ")
