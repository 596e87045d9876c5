"""Differences and settings as reports word them."""

from __future__ import annotations

import re

from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.spec.axis_words import Value, format_value
from cnnsearch.stats import Estimate
from cnnsearch.words import number_word, share, signed


def points(difference: Estimate, sign: int = 1) -> str:
    """A difference of accuracies with its interval: "2.7 points (0.4 to 5.0)". `sign` -1 turns it around."""
    low, high = sorted((sign * difference.low, sign * difference.high))
    return f"{signed(100 * sign * difference.value)} points ({signed(100 * low)} to {signed(100 * high)})"


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
