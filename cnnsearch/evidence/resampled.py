"""Metrics that are no mean over images, as if they were one: bootstrap resamples of the images take the place of these.

An accuracy is a mean over images, so its variance is read off single images. That of macro F1 or AUROC is not. There,
the images are resampled (Efron 1979, Ann. Stat. 7:1), class by class where the metric is made of classes, the same
resamples for all networks. How a metric deviates in each resample, times the root of the number of images, is a number
that varies as that of one image would: the mean of these numbers is the metric, their variance over the number of
images its variance, and the difference of two networks' numbers belongs to the paired difference of their metrics. So
all that `crossed` says of means over images and seeds holds for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.crossed import Answered, Crossed, of_images, spread
from cnnsearch.scores import Predicted, resampled, score
from cnnsearch.spec.metric import Metric
from cnnsearch.stats import LEVEL

LEAST_OF_A_CLASS = 5
"""Fewest images of every class with which a metric made of classes is compared. Of fewer, resamples hardly differ."""


def worth_images(metric: Metric, labels: NDArray[np.int64]) -> int:
    """How many images a metric is as uncertain as: where each class counts the same, the smallest one decides.

    0 where there are too few to say anything.
    """
    if not metric.by_class:
        return len(labels)
    sizes = np.unique(labels, return_counts=True)[1]
    smallest = int(sizes.min(initial=len(labels)))
    return len(sizes) * smallest if smallest >= LEAST_OF_A_CLASS else 0


def observations(
    metric: Metric, networks: Sequence[Predicted], weights: NDArray[np.float64], images: int
) -> NDArray[np.float64] | None:
    """Return numbers as described above, more is better: [networks, draws]; None where the metric cannot be had.

    Args:
        metric: of which resamples are made.
        networks: what each predicted for the same images.
        weights: [draws, n] as `scores.resamples` gives them.
        images: what `worth_images` says.
    """
    rows = []
    for network in networks:
        value, draws = score(metric.name, network), resampled(metric.name, network, weights)
        if images == 0 or value is None or draws is None or not np.isfinite(draws).all():
            return None
        smallest = images / max(1, len(np.unique(network.labels))) if metric.by_class else images
        # Resampled images vary less than images do, by one in each class.
        deviation = (draws - draws.mean()) * math.sqrt(smallest / (smallest - 1)) if smallest > 1 else draws * 0
        rows.append(value + math.sqrt(images) * deviation)
    return metric.sign * np.stack(rows)


def score_of(metric: Metric, table: NDArray[np.float64], side: Answered | None, n: int, images: int) -> Score:
    """The score of a setting with its interval.

    Args:
        metric: that the table is about.
        table: [seeds, draws], see `observations`.
        side: the same condensed, where there are seeds enough for an interval that covers them too.
        n: images.
        images: what `worth_images` says.
    """
    value = metric.sign * float(table.mean())
    if side is not None:
        half = spread(side, LEVEL)
        low, high, seeds = value - half, value + half, side.replicates
    else:
        drawn = metric.sign * table.mean(axis=0)
        low, high = (float(end) for end in np.quantile(value + (drawn - value) / math.sqrt(images), _ENDS))
        seeds = len(table)
    most = 1.0 if metric.is_share else math.inf
    return Score(value, max(0.0, low), min(most, high), n, seeds, metric.is_share)


_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def of_networks(means: NDArray[np.float64], images: int) -> Crossed:
    """A paired difference of networks from its [draws] numbers: a normal interval and test, over images alone."""
    estimate, error = of_images(means, images)
    p_value = 2 * NormalDist().cdf(-abs(estimate.value) / error) if error else float(estimate.value == 0)
    return Crossed(estimate, p_value, 0.0, 0.0)
