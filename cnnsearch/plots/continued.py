"""Stages that continue others: accuracy before and after, side by side for validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
_NARROW_ROW = 0.52
_LABEL = 44  # characters beside a row
_NARROW_LABEL = 26


def before_after(source: Tables | Evidence, stage: str | None = None, *, narrow: bool = False) -> Figure | None:
    """A row for each setting of a stage that starts from another: before, after, and both intervals.

    Without `stage`, the first one that continues another. None if there is none, or if nothing was measured before
    training. With `narrow`, the splits are below each other and names above their rows, for a phone.
    """
    evidence = as_evidence(source)
    name = stage or next((name for name in evidence.stages if evidence.continues(name)), None)
    groups = families(evidence, name) if name else []
    if not groups or name is None:
        return None
    with style.drawing():
        figure = _draw(evidence, name, groups, narrow=narrow)
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
        parts.append(f"{name} has no clear gain{harm}")
    what = words(axes[0]).full if len(axes) == 1 else stage
    return "; ".join(parts) if 0 < len(parts) <= 3 else f"What does {what} change?"


def _own_values(configuration: Configuration, axes: Sequence[str]) -> str:
    return ", ".join(describe(axis, configuration.values[axis]) for axis in axes)


def _draw(evidence: Evidence, stage: str, groups: Sequence[Sequence[Configuration]], *, narrow: bool) -> Figure:
    axes_names = evidence.axes(stage)
    labels = {s.key: " · ".join(describe(a, s.values[a]) for a in axes_names) for g in groups for s in g}
    longest = max(len(text) for text in [*labels.values(), *(_family(evidence, g) for g in groups)])
    left, gap, values = min(3.2, 0.3 + 0.07 * longest), 1.35, 1.25
    rows = sum(len(group) for group in groups) + 0.9 * len(groups)
    splits = evidence.measured
    # The panels share what names and numbers leave of the page.
    width = min(2.5, (style.PAGE - left - values - gap * (len(splits) - 1)) / len(splits))
    height, top = _ROW * rows, 0.62
    if narrow:
        left, width, height, top = 0.05, style.PHONE - 0.15, _NARROW_ROW * rows, 0.8
        below = height + 0.85
        figure = style.new_figure(style.PHONE, top + len(splits) * below)
    else:
        figure = style.new_figure(left + len(splits) * (width + gap) - gap + values, top + height + 0.5)
    for index, split in enumerate(splits):
        x, y = (left, top + index * below) if narrow else (left + index * (width + gap), top)
        axes = style.axes_at(figure, x, y, width, height)
        _panel(axes, evidence, groups, split, labels if index == 0 or narrow else {}, rows, narrow=narrow)
        axes.set_title(splits[split], loc="left", fontsize=10, fontweight="bold", pad=6)
    _share_x(figure, 1.0 if evidence.metric.is_share else float("inf"))
    _legend(figure, left, columns=2 if narrow else None)
    return figure


def _panel(
    axes: Axes,
    evidence: Evidence,
    groups: Sequence[Sequence[Configuration]],
    split: str,
    labels: dict[str, str],
    rows: float,
    *,
    narrow: bool,
) -> None:
    where: Any = {"x": 0, "ha": "left"} if narrow else {"x": -0.04, "ha": "right"}
    room, above = (_NARROW_LABEL, 0.42) if narrow else (_LABEL, 0)
    y = -0.5
    for group in groups:
        y += 0.5
        colour = style.colour_of(group[0].model, evidence.models)
        if labels:
            family = style.shorten(_family(evidence, group), _LABEL)
            beside(axes, y=y, text=family, color=colour, fontweight="bold", **where)
        y += 0.9
        best = best_of(group)
        for configuration in group:
            before, after = evidence.score(configuration, split, "before"), evidence.score(configuration, split)
            if before is not None and after is not None:
                _dumbbell(axes, y, before, after, colour, dashed=split == "val")
                weight = "bold" if best is not None and configuration.key == best.key else "normal"
                ink = style.THEME["ink"]
                side: Any = {"x": 1, "ha": "right"} if narrow else {"x": 1.03, "ha": "left"}
                beside(
                    axes, y=y - above, text=after.text, fontsize=style.SMALL, color=ink, fontweight=weight, **side
                )  # fmt: skip
            if labels:
                label = style.shorten(labels[configuration.key], room)
                beside(axes, y=y - above, text=label, color=style.THEME["ink"], **where)
            y += 1
        y -= 0.5
    axes.set_ylim(rows - 0.3 + 0.2 * narrow, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if evidence.metric.is_share:
        style.percent_axis(axes, "x")
    axes.set_xlabel(f"{evidence.metric.words}, 95 % interval")


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


def _share_x(figure: Figure, most: float) -> None:
    low = min(axes.get_xlim()[0] for axes in figure.axes)
    high = max(axes.get_xlim()[1] for axes in figure.axes)
    for axes in figure.axes:
        axes.set_xlim(max(0.0, low), min(most, high))


def _legend(figure: Figure, left: float, columns: int | None) -> None:
    ink, paper = style.THEME["ink"], style.THEME["paper"]
    handles = [
        style.dot("o", ink, paper, "before"),
        style.dot("o", ink, ink, "after, at its best epoch"),
        Line2D([], [], linestyle="none", label="bold: best by validation"),
    ]
    style.legend(figure, handles, max(0.0, left - 0.1), 0.05, columns)
