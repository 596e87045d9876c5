"""What the axes of a stage show: which of them make a table, and which of their values are ahead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cnnsearch import stats
from cnnsearch.evidence.comparisons import Comparison
from cnnsearch.evidence.configurations import Configuration, distinct, matched, preferred
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.evidence.verdicts import told_apart
from cnnsearch.spec.axis_words import Value

MOST_VALUES = 24
"""Values of an axis as rows or columns of a table; an axis with more is a scale."""


def main_stage(evidence: Evidence) -> str | None:
    """The first stage that trains from scratch and varies anything but the model; else the first."""
    fresh = [name for name in evidence.stages if not evidence.continues(name)]
    for name in fresh:
        if set(evidence.axes(name)) - {"model"}:
            return name
    return fresh[0] if fresh else None


def map_axes(evidence: Evidence, stage: str) -> tuple[list[str], list[str]]:
    """The axes of a stage that heatmaps show, and those they average over.

    Two axes (rows, columns) where the stage is a table over them, else the one with most values; none without any, or
    where ranges were searched.
    """
    if any(search.stage == stage and search.is_search and search.has_ranges for search in evidence.searches):
        return [], []  # no table: slices and a contour show these
    configurations = [c for c in evidence.stage(stage) if evidence.score(c) is not None]
    counts = {axis: len(distinct(configurations, axis)) for axis in evidence.axes(stage) if axis != "model"}
    axes = sorted((axis for axis in counts if counts[axis] > 1), key=lambda axis: -counts[axis])
    # Drawn at random, every value occurs once: that is a scale, not rows or columns.
    tabular = [axis for axis in axes if 2 * counts[axis] <= len(configurations) and counts[axis] <= MOST_VALUES]
    if len(tabular) < 2:
        return axes[:1], []
    first, second = tabular[:2]
    used = [second, first] if counts[first] > counts[second] else sorted((first, second), key=list(counts).index)
    return used, [axis for axis in axes if axis not in used]


class Lead(NamedTuple):
    """Two models, one of which is ahead in every setting that both were trained with."""

    ahead: str
    behind: str
    differences: list[float]
    """Differences in accuracy, one for each setting that both models were trained with."""


def leading_model(evidence: Evidence, configurations: Sequence[Configuration]) -> Lead | None:
    """The one of two models that is significantly ahead at each of two or more settings they share; else None."""
    models = [m for m in evidence.models if any(s.model == m for s in configurations)]
    if len(models) != 2:
        return None
    pairs = matched(configurations, "model", models[1], models[0])
    found = [comparison for pair in pairs if (comparison := evidence.compare([pair])) is not None]
    if len(found) < 2 or any(comparison.p_value >= stats.SIGNIFICANCE for comparison in found):
        return None
    for sign, ahead, behind in ((1, models[1], models[0]), (-1, models[0], models[1])):
        differences = [sign * comparison.difference.value for comparison in found]
        if min(differences) > 0:
            return Lead(ahead, behind, differences)
    return None


class Preferred(NamedTuple):
    """The value of an axis with the best validation accuracy, and how it compares with others on the test examples."""

    value: Value
    compared: list[tuple[Value, Comparison]]
    """The other values that could be compared with it; in each comparison, A is `value`."""
    told: list[tuple[Value, Comparison]]
    """Those of `compared` whose difference from `value` is significant, corrected for all comparisons."""


def preferred_value(evidence: Evidence, configurations: Sequence[Configuration], axis: str) -> Preferred:
    """Compare the value of an axis that has the best validation accuracy with each other value.

    Only settings that differ in nothing else are compared.
    """
    lead = preferred(configurations, axis)
    compared = [
        (other, comparison)
        for other in distinct(configurations, axis)
        if other != lead and (comparison := evidence.compare(matched(configurations, axis, lead, other))) is not None
    ]
    is_told = told_apart([comparison for _, comparison in compared])
    return Preferred(lead, compared, [item for item, told in zip(compared, is_told, strict=True) if told])
