"""Test accuracy over the axes of a stage: a heatmap for each model; along a single axis, dots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnnsearch.evidence.axes import MOST_VALUES, main_stage, map_axes
from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.configurations import Configuration, best_of, distinct, preferred
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.shown import has_intervals, maps_shown, some_settings
from cnnsearch.evidence.statements import champions, of_models, of_values
from cnnsearch.evidence.verdicts import CLEAR, SUGGESTIVE, Verdict
from cnnsearch.plots import style
from cnnsearch.results.tables import Tables
from cnnsearch.spec.axis_words import Value, describe, format_value, words
from cnnsearch.spec.metric import DEFAULT

_LEAST_CELL, _ROOMY_CELL = 0.34, 0.85  # inches across


def heatmaps(source: Tables | Evidence, stage: str | None = None, *, narrow: bool = False) -> Figure | None:
    """Draw heatmaps over two axes of a stage, all on one colour scale, or dots if there is only one axis.

    Without `stage`, the first one that varies anything but the model. None if there is nothing to show. With `narrow`,
    models are below each other, for a phone.
    """
    evidence = as_evidence(source)
    name = stage or main_stage(evidence)
    used, _ = map_axes(evidence, name) if name else ([], [])
    if name is None or not used:
        return None
    configurations = [c for c in evidence.stage(name) if evidence.score(c) is not None]
    with style.drawing():
        draw = _draw_maps if len(used) == 2 else _draw_dots
        figure = draw(evidence, configurations, *used, narrow=narrow)
        style.put_title(figure, heatmaps_title(evidence, configurations))
    return figure


def heatmaps_title(evidence: Evidence, configurations: Sequence[Configuration]) -> str:
    """Title of the figure: which model, or else which value of an axis, is or may be better; else a question."""
    stage = configurations[0].stage
    ranked = champions(evidence, evidence.stage(stage))
    if len(ranked) == 2:
        key = of_models(stage, ranked[0].model, ranked[1].model)
        if evidence.verdict(key) in (CLEAR, SUGGESTIVE):
            comparison = evidence.statements[key]
            ahead, behind = [c.model for c in ranked][:: 1 if comparison.difference.value > 0 else -1]
            by = f"by {abs(100 * comparison.difference.value):.1f} points"
            over = f" on average over {comparison.pairs} settings" if comparison.pairs > 1 else ""
            return f"{ahead} {_is(evidence.verdict(key))} better than {behind}, {by}{over}"
    varied = [axis for axis in evidence.axes(stage) if axis != "model"]
    for axis in varied:
        answer = axis_title(evidence, stage, axis)
        if answer:
            return answer
    named = " and the ".join(words(axis).full for axis in varied[:2])
    return f"How does {evidence.judged_by} change with the {named}?"


def axis_title(evidence: Evidence, stage: str, axis: str) -> str:
    """Say which values the one with the best validation accuracy is better than, or else may be; empty if none."""
    configurations = evidence.stage(stage)
    lead = preferred(configurations, axis)
    values = [value for value in distinct(configurations, axis) if value != lead]
    verdicts = {value: evidence.verdict(of_values(stage, axis, lead, value)) for value in values}
    verdict = CLEAR if CLEAR in verdicts.values() else SUGGESTIVE
    told = [value for value in values if verdicts[value] == verdict]
    differences = [evidence.statements[of_values(stage, axis, lead, value)] for value in told]
    if not told or any(comparison.difference.value < 0 for comparison in differences):
        return ""
    name = describe(axis, lead) if isinstance(lead, str) else f"{words(axis).full} {format_value(lead)}"
    if len(told) == len(values) > 1:
        which = f"all {len(values)} other values"
    else:
        which = format_value(told[0]) if len(told) == 1 else f"{len(told)} of {len(values)} other values"
    pairs = max(comparison.pairs for comparison in differences)
    return f"{name} {_is(verdict)} better than {which}" + (f", on average over {pairs} settings" if pairs > 1 else "")


def _is(verdict: Verdict) -> str:
    return "is" if verdict == CLEAR else "may be"


def _draw_maps(
    evidence: Evidence, configurations: Sequence[Configuration], row_axis: str, column_axis: str, *, narrow: bool
) -> Figure:
    rows, columns = distinct(configurations, row_axis), distinct(configurations, column_axis)
    models = maps_shown(evidence, configurations) or [""]
    cells = {
        (model, row, column): _cell(evidence, configurations, model, {row_axis: row, column_axis: column})
        for model in models
        for row in rows
        for column in columns
    }
    values = [cell[0].value for cell in cells.values() if cell is not None]
    low, high = min(values), max(values)
    roomy = has_intervals(columns)
    width, height = (1.3, 0.56) if roomy else (0.62, 0.34)
    gap, left = 0.35, 0.95
    if narrow:
        width = max(_LEAST_CELL, min(width, (style.PHONE - left - 0.05) / len(columns)))
        roomy = roomy and width >= _ROOMY_CELL
    panel, tall = width * len(columns), height * len(rows)
    # Values alone, with the axis named above them, where a column has no room for both.
    short = max(len(describe(column_axis, value)) for value in columns) * 0.078 > width
    top = 0.8 if short else 0.62
    # Where they are too wide, models go below each other.
    across = not narrow and left + len(models) * (panel + gap) <= style.PAGE
    if across:
        figure = style.new_figure(left + len(models) * (panel + gap), top + tall + 0.1)
    else:
        figure = style.new_figure(left + panel + 0.1, len(models) * (top + tall + 0.15))
    chosen = {model: best_of(s for s in configurations if s.model == model) for model in models}
    for index, model in enumerate(models):
        x, y = (left + index * (panel + gap), top) if across else (left, top + index * (top + tall + 0.15))
        axes = style.axes_at(figure, x, y, panel, tall)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                cell = cells[model, row, column]
                best = chosen[model]
                picked = cell is not None and best is not None and best.key in cell[1]
                share = (cell[0].value - low) / (high - low) if cell is not None and high > low else 0.5
                share = share if evidence.metric.is_larger_better else 1 - share
                _draw_cell(axes, j, i, None if cell is None else cell[0], share, roomy=roomy, picked=picked)
        _name_cells(
            axes, rows, columns, row_axis if index == 0 or not across else None, column_axis,
            short=short,
        )  # fmt: skip
        if model and len(evidence.models) > 1:
            colour = style.colour_of(model, evidence.models)
            pad = 36 if short else 24
            axes.set_title(model, loc="left", color=colour, fontsize=10, fontweight="bold", pad=pad)
    return figure


def _cell(
    evidence: Evidence, configurations: Sequence[Configuration], model: str, values: dict[str, Value]
) -> tuple[Score, set[str]] | None:
    """Mean accuracy of the configurations in a cell, and their keys; None for an empty cell."""
    inside = [
        s for s in configurations if s.model == model and all(s.values[axis] == value for axis, value in values.items())
    ]
    scores = [score for c in inside if (score := evidence.score(c)) is not None]
    if not scores:
        return None
    ends = zip(*((score.value, score.low, score.high) for score in scores), strict=True)
    value, low, high = (sum(several) / len(scores) for several in ends)
    mean = Score.of(value, scores[0].n)
    if evidence.metric.name != DEFAULT:  # the mean is at least as sure as its parts are on average
        mean = scores[0]._replace(value=value, low=low, high=high)
    return mean, {c.key for c in inside}


def _shown(value: float, *, is_share: bool) -> str:
    return f"{100 * value:.1f}" if is_share else f"{value:.2f}"


def _draw_cell(axes: Axes, x: int, y: int, score: Score | None, share: float, *, roomy: bool, picked: bool) -> None:
    gap = 0.02
    box = (x - 0.5 + gap, y - 0.5 + gap), 1 - 2 * gap, 1 - 2 * gap
    if score is None:
        axes.add_patch(
            Rectangle(*box, fill=False, edgecolor=style.THEME["faint"], linestyle=(0, (1, 2)), linewidth=0.8)
        )
        axes.text(x, y, "–", ha="center", va="center", color=style.THEME["muted"])
        return
    strength = 0.08 + 0.87 * share
    axes.add_patch(Rectangle(*box, facecolor=style.THEME["heat"], alpha=strength, linewidth=0))
    if picked:
        axes.add_patch(Rectangle(*box, fill=False, edgecolor=style.THEME["accent"], linewidth=2.2))
    ink, unit = text_on_heat(strength), " %" if roomy and score.is_share else ""
    axes.text(
        x, y + (0.13 if roomy else 0), _shown(score.value, is_share=score.is_share) + unit, ha="center",
        va="center_baseline", color=ink, fontsize=10 if roomy else 7.5, fontweight="bold",
    )  # fmt: skip
    if roomy:
        interval = "–".join(_shown(end, is_share=score.is_share) for end in (score.low, score.high))
        axes.text(x, y - 0.22, f"({interval})", ha="center", va="center_baseline", color=ink, fontsize=style.SMALL)


def text_on_heat(strength: float) -> str:
    """The colour of text on a cell whose heat colour has this opacity: readable in both themes."""
    return style.THEME["ink"] if strength <= 0.62 else style.THEME["on-heat"]


def _name_cells(
    axes: Axes,
    rows: Sequence[Value],
    columns: Sequence[Value],
    row_axis: str | None,
    column_axis: str,
    *,
    short: bool,
) -> None:
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(rows) - 0.5)  # larger values further up
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=9)
    axes.set_xticks(range(len(columns)), [format_value(v) if short else describe(column_axis, v) for v in columns])
    axes.xaxis.tick_top()
    if short:
        axes.set_xlabel(words(column_axis).full)
        axes.xaxis.set_label_position("top")
    names = [describe(row_axis, value) for value in rows] if row_axis else [""] * len(rows)
    axes.set_yticks(range(len(rows)), names)


def _draw_dots(evidence: Evidence, configurations: Sequence[Configuration], axis: str, *, narrow: bool) -> Figure:
    values = distinct(configurations, axis)
    numeric = all(isinstance(value, int | float) for value in values)
    as_scale = numeric and len(values) > MOST_VALUES
    models = maps_shown(evidence, configurations) or [""]
    configurations = some_settings([c for c in configurations if c.model in models])
    width = 5.6 if as_scale else min(7.5, max(3.4, 1.0 * len(values)))
    if narrow:
        width = style.PHONE - 0.8 - (0.95 if len(models) > 1 else 0.1)
    figure = style.new_figure(width + (1.9 if not narrow else style.PHONE - width), 3.5)
    axes = style.axes_at(figure, 0.75, 0.1, width, 2.6)
    ends: list[tuple[float, str, str]] = []
    for index, model in enumerate(models):
        colour = style.colour_of(model, evidence.models)
        points: list[tuple[float, Score]] = []
        for configuration in configurations:
            score = evidence.score(configuration)
            if configuration.model == model and score is not None:
                value = configuration.values[axis]
                shift = 0.0 if as_scale else 0.1 * (index - (len(models) - 1) / 2)
                points.append((float(value) if as_scale else values.index(value) + shift, score))  # type: ignore[arg-type]
        points.sort(key=lambda point: point[0])
        at, scores = [x for x, _ in points], [score for _, score in points]
        low, high = [score.low for score in scores], [score.high for score in scores]
        axes.vlines(at, low, high, color=colour, linewidth=1.6, alpha=0.6, capstyle="butt", zorder=2)
        axes.plot(at, [score.value for score in scores], "o", color=colour, markersize=5)
        if numeric and not as_scale and len(set(at)) == len(at):
            axes.plot(at, [score.value for score in scores], color=colour, linewidth=1, alpha=0.5)
        ends.append((points[-1][1].value, model, colour))
    if as_scale and min(values) > 0 and max(values) / min(values) > 50:  # type: ignore[operator,type-var]
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: format_value(float(f"{value:.3g}")))
        axes.xaxis.set_minor_formatter(lambda *_: "")
    if not as_scale:
        axes.set_xlim(-0.5, len(values) - 0.5)
        names = [style.shorten(format_value(value), 16) for value in values]
        axes.set_xticks(range(len(values)), names)
        style.slant_labels(axes, names, width / len(values))
    if len(models) > 1:
        _name_ends(axes, ends, 11 if narrow else 18)
    axes.set_xlabel(words(axis).full)
    axes.set_ylabel(f"{evidence.judged_by}, 95 % interval")
    axes.grid(axis="y")
    if evidence.metric.is_share:
        style.percent_axis(axes, "y")
    return figure


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]], room: int) -> None:
    """Write model names at the right edge, beside their last dots but never on top of each other."""
    low, high = axes.get_ylim()
    step = 0.07 * (high - low)
    at = -np.inf
    for y, model, colour in sorted(ends):
        at = max(y, at + step)
        axes.text(
            1.02, at, style.shorten(model, room), transform=axes.get_yaxis_transform(), color=colour,
            fontweight="bold", va="center",
        )  # fmt: skip
