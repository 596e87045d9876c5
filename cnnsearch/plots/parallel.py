"""Parallel coordinates: each trial is a line across all axes of the search."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsearch.evidence.searches import Attempt, Searched
from cnnsearch.evidence.shown import MOST_LINES, selection
from cnnsearch.evidence.space import Axis
from cnnsearch.plots import marks, style
from cnnsearch.spec.axis_words import format_value, words

_NOT_USED = -0.14  # below the axis: the position of trials that the axis does not apply to
_HIGHLIGHTED = 20
_LEAST = 5
_LEAST_GAP = 0.78  # inches between two axes: with more axes than fit on a page, the figure is wider


def parallel_coordinates(search: Searched) -> Figure | None:
    """Draw the fully trained trials, `highlighted` ones in colour; None with fewer than two axes or five trials.

    Axes stand in the order of the slices: the most important first where that is known.
    """
    axes_of = [axis for axis in search.by_importance if len({one.values.get(axis.name) for one in search.scored}) > 1]
    if len(axes_of) < 2 or len(search.scored) < _LEAST:
        return None
    best = highlighted(search)
    with style.drawing():
        gap = max(_LEAST_GAP, min(1.7, (style.PAGE - 1.1) / len(axes_of)))
        width = gap * len(axes_of)
        conditional = any(axis.name not in one.values for axis in axes_of for one in search.scored)
        top, height, below = 0.86, 2.7, 0.4 if conditional else 0.1
        figure = style.new_figure(0.5 + width + 0.5, top + height + below)
        axes = style.axes_at(figure, 0.5, top, width, height)
        _draw_lines(axes, search, axes_of, best)
        count = len(axes_of)
        for index, axis in enumerate(axes_of):
            conditional = any(axis.name not in one.values for one in search.scored)
            _draw_axis(axes, index, axis, gap, conditional=conditional)
        _draw_score_axis(axes, search, count)
        axes.set_xlim(-0.1, count + 0.1)
        axes.set_ylim(0, 1)
        axes.axis("off")
        _legend(figure, search, len(best))
        style.put_title(figure, parallel_title(search))
    return figure


def highlighted(search: Searched) -> list[Attempt]:
    """The trials to highlight: the best tenth, at least three and at most twenty."""
    return search.ranked()[: min(_HIGHLIGHTED, max(3, round(0.1 * len(search.scored))))]


def parallel_title(search: Searched) -> str:
    """Title of the figure: the values of listed axes that all the best trials share; a question if there are none."""
    best = highlighted(search)
    shared = []
    for axis in search.by_importance:
        values = {one.values.get(axis.name) for one in best}
        if axis.listed and len(values) == 1 and None not in values and len(best) >= 5:
            text = format_value(next(iter(values)))
            shared.append(text if axis.name in ("model", "optimizer") else f"{words(axis.name).full} {text}")
    if shared:
        return f"The best {len(best)} trials all use {' and '.join(shared[:2])}"
    return f"What do the best {len(best)} trials have in common?"


def _draw_lines(axes: Axes, search: Searched, axes_of: list[Axis], best: list[Attempt]) -> None:
    chosen = {one.number for one in best}
    scores = [search.score(one) for one in search.scored]
    span = min(scores), max(scores)
    others = [one for one in selection(search, search.scored, MOST_LINES) if one.number not in chosen]
    colours = marks.colours(search)
    alpha = 0.75 if len(others) <= 30 else 0.45 if len(others) <= 100 else 0.25
    for attempts, strong in ((others, False), (best[::-1], True)):
        for one in attempts:
            x, y = list(range(len(axes_of) + 1)), [_height(axis, one) for axis in axes_of]
            y.append(_score_position(search, one, span))
            is_best = search.best is not None and one.number == search.best.number
            colour = style.THEME["accent"] if is_best else colours[one.model]
            axes.plot(
                x, y, color=colour if strong else style.THEME["faint"],
                linewidth=2.4 if is_best else 1.2 if strong else 0.7,
                alpha=1 if is_best else 0.75 if strong else alpha, zorder=5 if is_best else 4 if strong else 2,
                clip_on=False, solid_joinstyle="round", gid="highlighted" if strong else "other",
            )  # fmt: skip


def _height(axis: Axis, attempt: Attempt) -> float:
    if axis.name not in attempt.values:
        return _NOT_USED
    position = axis.position(attempt.values[axis.name])
    if position is None or axis.is_range:
        return _NOT_USED if position is None else position
    # Spread a little, so that trials with the same value do not hide each other.
    return min(1.0, max(0.0, position + 0.08 * marks.aside(attempt)))


def _score_position(search: Searched, attempt: Attempt, span: tuple[float, float]) -> float:
    low, high = span
    share = (search.score(attempt) - low) / (high - low) if high > low else 0.5
    return share if search.objective.is_larger_better else 1 - share


def _draw_axis(axes: Axes, index: int, axis: Axis, gap: float, *, conditional: bool) -> None:
    axes.plot([index, index], [0, 1], color=style.THEME["muted"], linewidth=0.9, zorder=6, clip_on=False)
    lines = textwrap.wrap(words(axis.name).full, max(10, int(gap / 0.075)), break_long_words=False)
    name = "\n".join(lines + ["log scale"] * (axis.is_log and axis.is_range))
    axes.text(index, 1.06, name, ha="center", va="bottom", fontsize=8.5, color=style.THEME["ink"])
    for position, text in marks.ticks(axis):
        axes.plot([index - 0.02, index + 0.02], [position] * 2, color=style.THEME["muted"], linewidth=0.9, zorder=6)
        _tick(axes, index, position, style.shorten(text, max(6, int(gap / 0.075) - 1)))
    if conditional:
        _tick(axes, index, _NOT_USED, "not used")


def _tick(axes: Axes, x: float, y: float, text: str) -> None:
    box = {"facecolor": style.THEME["paper"], "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    axes.text(
        x + 0.04, y, text, ha="left", va="center", fontsize=style.SMALL, color=style.THEME["muted"], zorder=7, bbox=box
    )


def _draw_score_axis(axes: Axes, search: Searched, index: int) -> None:
    scores = [search.score(one) for one in search.scored]
    low, high = min(scores), max(scores)
    axes.plot([index, index], [0, 1], color=style.THEME["ink"], linewidth=1.2, zorder=6, clip_on=False)
    label = search.objective.label.replace(" ", "\n", 1)
    axes.text(index, 1.06, label, ha="center", va="bottom", fontsize=8.5, color=style.THEME["ink"], fontweight="bold")
    ends = (low, high) if search.objective.is_larger_better else (high, low)
    for position in (0.0, 0.25, 0.5, 0.75, 1.0):
        _tick(axes, index, position, search.objective.text(ends[0] + position * (ends[1] - ends[0])))


def _legend(figure: Figure, search: Searched, count: int) -> None:
    accent, faint = style.THEME["accent"], style.THEME["faint"]
    handles = [Line2D([], [], color=accent, linewidth=2.4, label="best")]
    for model, colour in marks.colours(search).items():
        label = f"the best {count}" + (f", {style.shorten(model, 20)}" if marks.has_models(search) else "")
        if any(one.model == model for one in highlighted(search)):
            handles.append(Line2D([], [], color=colour, linewidth=1.2, label=label))
    handles.append(Line2D([], [], color=faint, linewidth=0.8, label="other trials"))
    style.legend(figure, handles, 0.1, 0.02, handletextpad=0.5, columnspacing=1.4, handlelength=1.6)
