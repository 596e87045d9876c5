"""Images whose label the best networks doubt most: some of their labels are wrong.

The doubt of an image is how little probability the networks give its label, on average over the best of them. It is
compared within its split, because networks have seen the training images with their labels and believe those more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence.configurations import is_missing
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.spec.metric import METRICS

JUDGES = 5
"""Most networks that are asked."""
MOST = 1000
"""Most images of a split in the table."""
SHOWN = 12
"""Images that a report shows as pictures."""


@dataclass(frozen=True)
class Doubt:
    """An image and what the networks say of it."""

    example: str
    split: str
    label: str
    predicted: str
    """What most networks say; of as many, the surer ones."""
    given: float
    """Probability of the label, the mean over networks."""
    place: float
    """Share of the images of its split that are doubted as much or more, above 0 to 1."""


def judges(evidence: Evidence) -> list[str]:
    """Ids of the trials whose networks are asked: the best by validation, of those that finished."""
    metric = METRICS[evidence.tables.sweep.metric]
    rows = [
        (metric.sign * float(row[metric.measure]), str(row["trial_id"]))
        for row in evidence.rows
        if row["status"] == "done" and not is_missing(row.get(metric.measure))
    ]
    return [trial_id for _, trial_id in sorted(rows, key=lambda row: (-row[0], row[1]))[:JUDGES]]


def doubts(evidence: Evidence) -> list[Doubt]:
    """Images by how much their labels are doubted, the most first; at most `MOST` of each split."""
    chosen, found = judges(evidence), list[Doubt]()
    for split in evidence.measured:
        if evidence.is_by_fold(split):
            # Of the best settings the networks that were not trained on an image.
            best = sorted(evidence.configurations, key=lambda c: (-c.worth, c.order))[:JUDGES]
            answers = [known for c in best for known in evidence.whole_answers(c.trial_ids, split)]
        else:
            answers = [known for one in chosen if (known := evidence.answers(one, split)) is not None]
        if answers:
            predicted = np.stack([one.predicted for one in answers])
            confidence = np.stack([one.confidence for one in answers])
            doubted = most_doubted(evidence.labels[split], predicted, confidence, len(evidence.classes))
            found += _named(evidence.examples[split], split, doubted, evidence.classes)
    found += _of_training(evidence.tables.training, evidence.classes)
    return sorted(found, key=lambda doubt: (doubt.place, doubt.given, doubt.split, doubt.example))


@dataclass(frozen=True)
class Doubted:
    """The most doubted images of one split, the most first."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    given: NDArray[np.float64]
    images: int
    """All images of the split."""

    def recorded(self, names: Sequence[str]) -> dict[str, Any]:
        """As a results folder keeps it."""
        columns = (self.labels.tolist(), self.predicted.tolist(), self.given.round(6).tolist())
        listed = [names[row] for row in self.rows]
        return {"images": self.images, "doubted": [list(row) for row in zip(listed, *columns, strict=True)]}


def most_doubted(labels: NDArray[np.int64], predicted: NDArray[Any], confidence: NDArray[Any], classes: int) -> Doubted:
    """Find the images whose labels several networks doubt most.

    Args:
        labels: [N] class of each image.
        predicted: [M, N] class that each network finds most probable.
        confidence: [M, N] its probability. Of a network that says another class than the label, the probability of the
            label is not recorded: it counts as an even share of what is left.
        classes: number of classes.
    """
    agrees = predicted == labels
    given = np.where(agrees, confidence, (1 - confidence) / max(1, classes - 1)).mean(axis=0)
    rows = np.argsort(given, kind="stable")[:MOST]
    votes = np.zeros((len(rows), classes))
    for answers, sure in zip(predicted[:, rows], confidence[:, rows], strict=True):
        votes[np.arange(len(rows)), answers] += 1 + sure / (1 + len(predicted))
    return Doubted(rows, labels[rows], votes.argmax(axis=1), given[rows].astype(np.float64), len(labels))


def _named(names: Sequence[str], split: str, found: Doubted, classes: Sequence[str]) -> list[Doubt]:
    columns = zip(found.rows, found.labels, found.predicted, found.given, strict=True)
    return [
        Doubt(names[row], split, classes[label], classes[said], float(given), (rank + 1) / found.images)
        for rank, (row, label, said, given) in enumerate(columns)
    ]


def _of_training(recorded: Mapping[str, Any], classes: Sequence[str]) -> list[Doubt]:
    return [
        Doubt(name, "train", classes[label], classes[said], float(given), (rank + 1) / recorded["images"])
        for rank, (name, label, said, given) in enumerate(recorded.get("doubted") or [])
        if max(label, said) < len(classes)
    ]


def doubted_wanted(evidence: Evidence) -> list[str]:
    """Names of the images that a report shows pictures of."""
    return [doubt.example for doubt in shown(doubts(evidence))]


def shown(found: Sequence[Doubt]) -> list[Doubt]:
    """The first of those whose label is not what the networks say."""
    return [doubt for doubt in found if doubt.predicted != doubt.label][:SHOWN]
