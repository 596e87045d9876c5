"""Stages that continue others: accuracy before and after, side by side for validation and test."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.configurations import Configuration, best_of
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.families import families
from cnnsearch.evidence.statements import of_change
from cnnsearch.evidence.verdicts import CLEAR
from cnnsearch.plots import style
from cnnsearch.plots.dots import beside
from cnnsearch.results.tables import Tables
from cnnsearch.spec.axis_words import describe, words

_ROW = 0.34


def before_after(source: Tables | Evidence, stage: str | None = None) -> Figure | None:
    """A row for each setting of a stage that starts from another: before, after, and both intervals.

    Without `stage`, the first one that continues another. None if there is none, or if nothing was measured before
    training.
    """
    evidence = as_evidence(source)
    name = stage or next((name for name in evidence.stages if evidence.continues(name)), None)
    groups = families(evidence, name) if name else []
    if not groups or name is None:
        return None
    with style.drawing():
        figure = _draw(evidence, name, groups)
        style.put_title(figure, before_after_title(evidence, name))
    return figure


def before_after_title(evidence: Evidence, stage: str) -> str:
    """Title of the figure: for each model, how its accuracy changed from before training to after it.

    It names the best child by validation accuracy if its change is significant, else the child that lost most.
    """
    axes = evidence.axes(stage)
    parts = []
    for group in families(evidence, stage):
        best = best_of(group)
        changes = {s.key: evidence.statements[of_change(s)] for s in group if evidence.verdict(of_change(s)) == CLEAR}
        name = group[0].model or stage
        if best is not None and best.key in changes:
            points = 100 * changes[best.key].difference.value
            verb = "gains" if points > 0 else "loses"
            parts.append(f"{name} {verb} {abs(points):.1f} points with {_own_values(best, axes)}")
            continue
        worst = min(group, key=lambda s: changes[s.key].difference.value if s.key in changes else 0.0)
        lost = -100 * changes[worst.key].difference.value if worst.key in changes else 0.0
        harm = f" and loses {lost:.1f} points with {_own_values(worst, axes)}" if lost > 0 else ""
        parts.append(f"{name} gains nothing clear{harm}")
    what = words(axes[0]).full if len(axes) == 1 else stage
    return "; ".join(parts) if 0 < len(parts) <= 3 else f"What does {what} change?"


def _own_values(configuration: Configuration, axes: Sequence[str]) -> str:
    return ", ".join(describe(axis, configuration.values[axis]) for axis in axes)


def _draw(evidence: Evidence, stage: str, groups: Sequence[Sequence[Configuration]]) -> Figure:
    axes_names = evidence.axes(stage)
    labels = {s.key: " · ".join(describe(a, s.values[a]) for a in axes_names) for g in groups for s in g}
    left = min(3.2, 0.3 + 0.08 * max(len(text) for text in [*labels.values(), *(_family(evidence, g) for g in groups)]))
    width, gap, values = 2.5, 1.35, 1.3
    rows = sum(len(group) for group in groups) + 0.9 * len(groups)
    height, top = _ROW * rows, 0.62
    splits = evidence.measured
    figure = style.new_figure(left + len(splits) * (width + gap) - gap + values, top + height + 0.5)
    for index, split in enumerate(splits):
        axes = style.axes_at(figure, left + index * (width + gap), top, width, height)
        _panel(axes, evidence, groups, split, labels if index == 0 else {}, rows)
        axes.set_title(splits[split], loc="left", fontsize=10, fontweight="bold", pad=6)
    _share_x(figure)
    _legend(figure, left)
    return figure


def _panel(
    axes: Axes,
    evidence: Evidence,
    groups: Sequence[Sequence[Configuration]],
    split: str,
    labels: dict[str, str],
    rows: float,
) -> None:
    y = -0.5
    for group in groups:
        y += 0.5
        colour = style.colour_of(group[0].model, evidence.models)
        if labels:
            beside(axes, -0.04, y, _family(evidence, group), color=colour, fontweight="bold", ha="right")
        y += 0.9
        best = best_of(group)
        for configuration in group:
            before, after = evidence.score(configuration, split, "before"), evidence.score(configuration, split)
            if before is not None and after is not None:
                _dumbbell(axes, y, before, after, colour, dashed=split == "val")
                weight = "bold" if best is not None and configuration.key == best.key else "normal"
                ink = style.THEME["ink"]
                beside(axes, 1.03, y, after.text, fontsize=style.SMALL, color=ink, fontweight=weight)
            if labels:
                beside(axes, -0.04, y, labels[configuration.key], color=style.THEME["ink"], ha="right")
            y += 1
        y -= 0.5
    axes.set_ylim(rows - 0.3, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    style.percent_axis(axes, "x")
    axes.set_xlabel("accuracy, 95 % interval")


def _family(evidence: Evidence, group: Sequence[Configuration]) -> str:
    """Say in words what the configurations of a group started from."""
    parent = evidence.by_key.get(group[0].parent or "")
    axes = evidence.axes(group[0].stage)
    return group[0].model if parent is None else evidence.label(parent, omit=axes, separator=" · ")


def _dumbbell(axes: Axes, y: float, before: Score, after: Score, colour: str, *, dashed: bool) -> None:
    """Draw the score before training (hollow) above the one after it (filled), joined by a line.

    At different heights, their intervals do not hide each other.
    """
    lift = 0.16
    paper = style.THEME["paper"]
    dashes = style.VALIDATION_DASHES if dashed else "-"
    axes.plot([before.low, before.high], [y - lift] * 2, color=colour, linewidth=1.2, alpha=0.55, linestyle=dashes)
    axes.plot([after.low, after.high], [y + lift] * 2, color=colour, linewidth=1.6, linestyle=dashes)
    axes.plot([before.value, after.value], [y - lift, y + lift], color=colour, linewidth=1)
    axes.plot([before.value], [y - lift], "o", color=colour, markerfacecolor=paper, markersize=5, markeredgewidth=1.2)
    axes.plot([after.value], [y + lift], "o", color=colour, markersize=5)


def _share_x(figure: Figure) -> None:
    low = min(axes.get_xlim()[0] for axes in figure.axes)
    high = max(axes.get_xlim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_xlim(max(0.0, low), min(1.0, high))


def _legend(figure: Figure, left: float) -> None:
    ink, paper = style.THEME["ink"], style.THEME["paper"]
    handles = [
        style.dot("o", ink, paper, "before"),
        style.dot("o", ink, ink, "after, at its best epoch"),
        Line2D([], [], linestyle="none", label="bold: best by validation"),
    ]
    style.legend(figure, handles, left - 0.1, 0.05)
