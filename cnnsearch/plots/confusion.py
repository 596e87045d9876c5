"""The confusion matrix of a configuration."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.mistakes import counts, most_confused, most_mistaken
from cnnsearch.evidence.shown import COMPACT_CLASSES, MATRIX_CLASSES, MOST_CLASSES, NUMBERED_CLASSES
from cnnsearch.plots import style
from cnnsearch.plots.heatmaps import text_on_heat
from cnnsearch.results.tables import Tables

_COMPACT_NUMBERED_CLASSES = 12
_COMPACT_SIDE = 3.2  # inches
_LEAST_CELL = 0.125  # inches: names have to fit beside each other


def confusion_matrix(
    source: Tables | Evidence,
    configuration: Configuration | None = None,
    moment: str = "best",
    *,
    compact: bool = False,
) -> Figure | None:
    """Rows are true classes, columns predicted ones; cells count examples, coloured by their share of the row.

    With more than `MATRIX_CLASSES`, the `MOST_CLASSES` with the most mistakes are drawn, and `COMPACT_CLASSES` if
    `compact`; shares are still of all.
    Without `configuration`, the best one. None where its predictions were not recorded.
    """
    evidence = as_evidence(source)
    chosen = configuration or evidence.best
    matrix = counts(evidence, chosen, moment) if chosen else None
    if chosen is None or matrix is None:
        return None
    with style.drawing():
        figure = _draw(evidence.classes, matrix, compact=compact)
        style.put_title(figure, confusion_title(evidence, chosen, moment))
    return figure


def confusion_title(evidence: Evidence, configuration: Configuration, moment: str = "best") -> str:
    """Title of a confusion matrix: the most frequent mistake of the best configuration, the name of any other one."""
    if evidence.best is None or configuration.key != evidence.best.key or moment != "best":
        name = evidence.label(configuration)
        return f"{name}, before training on" if moment == "before" else name
    worst = most_confused(evidence, configuration, 1)
    if not worst:
        return f"No {evidence.judged} image is mistaken"
    label, predicted = style.shorten(worst[0].label, 24), style.shorten(worst[0].predicted, 24)
    return f"Most often, {label} is taken for {predicted}: {worst[0].times} of {worst[0].of}"


def _draw(classes: list[str], matrix: NDArray[np.int64], *, compact: bool) -> Figure:
    totals = np.maximum(1, matrix.sum(axis=1, keepdims=True))
    most, kept = (COMPACT_CLASSES, COMPACT_CLASSES) if compact else (MATRIX_CLASSES, MOST_CLASSES)
    if len(classes) > most:
        shown = most_mistaken(matrix, kept)
        classes, matrix, totals = [classes[i] for i in shown], matrix[np.ix_(shown, shown)], totals[shown]
    size = len(classes)
    numbers = size <= (_COMPACT_NUMBERED_CLASSES if compact else NUMBERED_CLASSES)
    cell = (0.27 if compact else 0.44) if size <= 12 else 0.3 if numbers else max(_LEAST_CELL, 4.5 / size)
    if compact:
        cell = max(_LEAST_CELL, min(cell, _COMPACT_SIDE / size))
    font = max(style.LEAST, min(7.0 if compact else 8.5, 72 * cell * 0.62))
    limit = 22 if not compact else 12
    names = [style.shorten(name, limit) for name in classes]
    margin = 0.15 + 0.0095 * font * max(len(name) for name in names)
    side = cell * size
    figure = style.new_figure(margin + side + 0.2, 0.75 * margin + side + 0.45)
    axes = style.axes_at(figure, margin + 0.15, 0.75 * margin + 0.25, side, side)
    _cells(axes, matrix, matrix / totals, numbers=numbers, font=7 if compact else 8.5)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.tick_params(length=0, labelsize=font, labelcolor=style.THEME["ink"], pad=2)
    axes.xaxis.tick_top()
    axes.set_xticks(range(size), names, rotation=45 if size <= 40 else 90, ha="left" if size <= 40 else "center")
    for tick in axes.get_xticklabels():
        tick.set_rotation_mode("anchor" if size <= 40 else "default")
    axes.set_yticks(range(size), names)
    if not compact:
        axes.set_ylabel("true class")
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("predicted class", loc="left")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(style.THEME["rule"])
    return figure


def _cells(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64], *, numbers: bool, font: float) -> None:
    """Draw the cells that are not empty; with many classes most are."""
    filled = list(zip(*np.nonzero(matrix), strict=True))
    strengths = [0.06 + 0.89 * float(shares[cell]) for cell in filled]
    for strength in sorted(set(strengths)):
        boxes = [
            Rectangle((j - 0.5, i - 0.5), 1, 1) for (i, j), s in zip(filled, strengths, strict=True) if s == strength
        ]
        axes.add_collection(
            PatchCollection(boxes, facecolor=style.THEME["heat"], alpha=strength, linewidth=0, edgecolor="none")
        )
    if not numbers:
        return
    for (i, j), strength in zip(filled, strengths, strict=True):
        number = axes.text(
            j, i, str(matrix[i, j]), ha="center", va="center_baseline", fontsize=font, color=text_on_heat(strength),
            fontweight="bold" if i == j else "normal",
        )  # fmt: skip
        number.set_in_layout(False)  # it lies within its cell: the figure's extent need not be found from it
