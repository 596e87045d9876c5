"""Which stage and which of its axes a report shows as a table."""

from __future__ import annotations

from cnnsearch.evidence.compared import Compared
from cnnsearch.evidence.configurations import axes_in, distinct

MOST_VALUES = 24
"""Values of an axis as rows or columns of a table; an axis with more is a scale."""


def main_stage(compared: Compared) -> str | None:
    """The first stage that trains from scratch and varies anything but the model; else the first."""
    for name in compared.fresh_stages:
        if set(compared.axes(name)) - {"model"}:
            return name
    return next(iter(compared.fresh_stages), None)


def map_axes(compared: Compared, stage: str) -> tuple[list[str], list[str]]:
    """The axes of a stage that heatmaps show, and those they average over.

    Two axes (rows, columns) where the stage is a table over them, else the one with most values; none without any, or
    where ranges were searched. The same two axes lie the same way in every report: learning rates are rows, batch sizes
    columns, however many there are of each.
    """
    if any(search.stage == stage and search.is_search and search.has_ranges for search in compared.searches):
        return [], []  # no table: slices and a contour show these
    configurations = [c for c in compared.stage(stage) if compared.score(c) is not None]
    counts = {axis: len(distinct(configurations, axis)) for axis in compared.axes(stage) if axis != "model"}
    axes = sorted((axis for axis in counts if counts[axis] > 1), key=lambda axis: -counts[axis])
    # Drawn at random, every value occurs once: that is a scale, not rows or columns.
    tabular = [axis for axis in axes if 2 * counts[axis] <= len(configurations) and counts[axis] <= MOST_VALUES]
    if len(tabular) < 2:
        return axes[:1], []
    used = sorted(tabular[:2], key=axes_in(c.values for c in configurations).index)
    return used, [axis for axis in axes if axis not in used]
