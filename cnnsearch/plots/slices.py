"""Slices: the score over each axis of a search alone."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsearch.evidence.regions import region
from cnnsearch.evidence.searches import Searched
from cnnsearch.evidence.shown import selection
from cnnsearch.evidence.space import Axis
from cnnsearch.plots import marks, style
from cnnsearch.words import listed

_COLUMNS = 3
_LEAST_FOR_A_LINE = 40
_PANEL_HEIGHT, _GAP, _BETWEEN = 1.75, 0.28, 0.75


def slices(search: Searched) -> Figure | None:
    """Draw score against value in a panel for each axis, the most important axis first.

    None if no trial was trained to its end.
    """
    axes_of = [axis for axis in search.by_importance if any(axis.name in one.values for one in search.scored)]
    if not axes_of:
        return None
    columns = min(_COLUMNS, len(axes_of))
    width = {1: 4.4, 2: 3.4}.get(columns, 2.45)
    rows = math.ceil(len(axes_of) / columns)
    left, top = 0.7, 0.4
    with style.drawing():
        figure = style.new_figure(left + columns * (width + _GAP), top + rows * (_PANEL_HEIGHT + _BETWEEN))
        column = search.objective.column
        scores = [search.score(one) for one in search.scored]
        scores += [one.scores[column] for one in search.stopped if column in one.scores]
        limits = marks.score_limits(search.objective, scores)
        for index, axis in enumerate(axes_of):
            i, j = divmod(index, columns)
            x, y = left + j * (width + _GAP), top + i * (_PANEL_HEIGHT + _BETWEEN)
            axes = style.axes_at(figure, x, y, width, _PANEL_HEIGHT)
            axes.set_ylim(*limits)
            _draw_panel(axes, search, axis)
            axes.grid(axis="y")
            marks.score_axis(axes, search.objective)
            if j:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
        marks.legend(figure, search, left - 0.05, 0.05)
        style.put_title(figure, slices_title(search))
    return figure


def slices_title(search: Searched) -> str:
    """Title of the figure: where the best trials lie on the axes that matter, or a question if that cannot be said."""
    found = search.importances
    leaders = [axis for axis in search.by_importance if found is not None and found.stands_out(axis.name)]
    spans = [text for axis in leaders if (text := region(search, axis))]
    if not spans:
        return f"How does {search.objective.label} change along each axis?"
    return f"The best trials: {listed(spans[:2])}"


def _draw_panel(axes: Axes, search: Searched, axis: Axis) -> None:
    column = search.objective.column
    stopped = [one for one in selection(search, search.stopped) if column in one.scores]
    marks.draw_stopped(
        axes, search, [(one, x, one.scores[column]) for one in stopped if (x := marks.place(axis, one)) is not None]
    )
    finished = [
        (one, x, search.score(one))
        for one in selection(search, search.scored)
        if (x := marks.place(axis, one)) is not None
    ]
    marks.draw_finished(axes, search, finished)
    _draw_middle(axes, search, axis)
    best = search.best
    if best is not None and (x := marks.place(axis, best)) is not None:
        marks.draw_best(axes, x, search.score(best))
    marks.lay_out(axes, axis, "x")
    absent = sum(axis.name not in one.values for one in search.scored)
    if absent:
        axes.text(
            1, 1.02, f"{len(search.scored) - absent:,} of {len(search.scored):,} trials", transform=axes.transAxes,
            ha="right", va="bottom", fontsize=style.SMALL, color=style.THEME["muted"],
        )  # fmt: skip


def _draw_middle(axes: Axes, search: Searched, axis: Axis) -> None:
    """Draw the median score at each listed value, or in each tenth of a range if there are enough trials."""
    known = [
        (position, search.score(one))
        for one in search.scored
        if axis.name in one.values and (position := axis.position(one.values[axis.name])) is not None
    ]
    ink = style.THEME["ink"]
    if not axis.is_range:
        half = 0.3 / max(1, len(axis.listed) - 1)
        for position in sorted({position for position, _ in known}):
            middle = float(np.median([score for at, score in known if at == position]))
            axes.plot([position - half, position + half], [middle] * 2, color=ink, linewidth=1.6, zorder=4)
        return
    if len(known) < _LEAST_FOR_A_LINE:
        return
    bins = 10 if len(known) >= 100 else 5
    points = []
    for k in range(bins):
        inside = [(at, score) for at, score in known if k <= at * bins < k + 1 or (k == bins - 1 and at == 1)]
        if len(inside) >= 4:
            points.append((float(np.median([at for at, _ in inside])), float(np.median([s for _, s in inside]))))
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), color=ink, linewidth=1.4, zorder=4, gid="median")
