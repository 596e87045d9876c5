"""The mistakes of a configuration: which classes it confuses, and where it is most sure and wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.results.tables import Tables

MOST_WRONG = 24
"""Wrong answers of the best configuration that a report shows."""


class Mistake(NamedTuple):
    """How often examples of class `label` were taken for `predicted`."""

    label: str
    predicted: str
    times: int
    of: int
    """All examples of the class."""


def counts(evidence: Evidence, configuration: Configuration, moment: str = "best") -> NDArray[np.int64] | None:
    """Examples by true class (rows) and predicted class (columns), summed over seeds; None where not recorded."""
    size = len(evidence.classes)
    matrix = np.zeros((size, size), dtype=np.int64)
    for answers in evidence.whole_answers(configuration.trial_ids, moment=moment):
        np.add.at(matrix, (evidence.labels[evidence.judged_on], answers.predicted), 1)
    return matrix if matrix.any() else None


def recalls(evidence: Evidence, configuration: Configuration) -> list[tuple[str, Score]]:
    """Each class with the share of its test images that are found, in the order of the data; empty if not recorded.

    A mean over seeds, with Wilson's interval over the images of the class. Classes without test images are left out.
    """
    matrix = counts(evidence, configuration)
    if matrix is None:
        return []
    seeds = len(evidence.whole_answers(configuration.trial_ids))
    images = matrix.sum(axis=1) // seeds
    return [
        (name, Score.of(float(matrix[i, i]) / (seeds * int(images[i])), int(images[i])))
        for i, name in enumerate(evidence.classes)
        if images[i]
    ]


def most_confused(evidence: Evidence, configuration: Configuration, limit: int = 3) -> list[Mistake]:
    """The most frequent mistakes, by their share of the true class."""
    matrix = counts(evidence, configuration)
    if matrix is None:
        return []
    totals = matrix.sum(axis=1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    cells = [(i, j) for i, j in zip(*np.nonzero(wrong), strict=True)]
    cells.sort(key=lambda cell: (-wrong[cell] / totals[cell[0]], -wrong[cell], cell))
    names = evidence.classes
    return [Mistake(names[i], names[j], int(wrong[i, j]), int(totals[i])) for i, j in cells[:limit]]


def most_mistaken(matrix: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """The `most` classes of a confusion matrix with the most mistakes, in the order of the data.

    A mistake counts for the true class and for the predicted one.
    """
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return np.sort(np.argsort(-wrong, kind="stable")[:most])


@dataclass(frozen=True)
class Wrong:
    """A test image that the best configuration was sure of and wrong about."""

    example: str
    label: str
    predicted: str
    confidence: float
    png: str | None
    """Base64, where there is a picture."""


def most_sure_and_wrong(evidence: Evidence, limit: int = MOST_WRONG) -> list[Wrong]:
    """The test images that the best configuration (of several seeds, the first network) is most surely wrong about."""
    best = evidence.best
    found = evidence.whole_answers(best.trial_ids if evidence.folds else best.trial_ids[:1]) if best else []
    if not found:
        return []
    answers = found[0]
    on, classes = evidence.judged_on, evidence.classes
    labels, examples = evidence.labels[on], evidence.examples[on]
    wrong = [i for i in range(len(labels)) if answers.predicted[i] != labels[i]]
    wrong.sort(key=lambda i: (-answers.confidence[i], examples[i]))
    pictures = evidence.tables.pictures.get("examples") or {}
    return [
        Wrong(
            examples[i],
            classes[labels[i]],
            classes[answers.predicted[i]],
            float(answers.confidence[i]),
            pictures.get(examples[i]),
        )
        for i in wrong[:limit]
    ]


def examples_wanted(source: Tables | Evidence, limit: int = MOST_WRONG) -> list[str]:
    """Names of the test examples that a report shows pictures of: see `most_sure_and_wrong`."""
    return [wrong.example for wrong in most_sure_and_wrong(as_evidence(source), limit)]
