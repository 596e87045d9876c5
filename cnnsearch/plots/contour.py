"""The score over the two axes that matter most, smoothed between trials and left blank where there are none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cnnsearch.evidence.regions import contour_axes
from cnnsearch.evidence.searches import Attempt, Searched
from cnnsearch.evidence.shown import selection
from cnnsearch.evidence.space import Axis
from cnnsearch.plots import marks, style
from cnnsearch.spec.axis_words import words

_CELLS = 60
_TOGETHER = 2**17  # numbers
_LEVELS = 8
_STRONGEST = 0.8
Grid = NDArray[np.float64]


def contour(search: Searched) -> Figure | None:
    """Draw two ranges as a map with contours, a list and a range as bands, two lists as cells.

    None where `contour_axes` finds no two axes.
    """
    chosen = contour_axes(search)
    if chosen is None:
        return None
    across, up = chosen
    points = [
        (one, x, y, score)
        for one, score in search.comparable
        if (x := _position(across, one)) is not None and (y := _position(up, one)) is not None
    ]
    with style.drawing():
        width, height = 4.9, 3.5 if up.is_range else min(8.0, max(1.2, 0.55 * len(up.listed)))
        figure = style.new_figure(0.95 + width + 1.1, 0.4 + height + 0.6)
        axes = style.axes_at(figure, 0.95, 0.4, width, height)
        x, y, z = np.array([point[1:] for point in points], dtype=np.float64).T
        low, high = _shown_span(search, z)
        marks.lay_out(axes, across, "x")
        marks.lay_out(axes, up, "y")
        if across.is_range and up.is_range:
            _draw_map(axes, search, x, y, z, (low, high))
        else:
            _draw_bands(axes, search, across, up, (x, y, z), (low, high))
        shown = selection(search, [one for one, *_ in points])
        places = [(one, _aside(across, one), _aside(up, one)) for one in shown]
        marks.draw_stopped(axes, search, [place for place in places if not place[0].is_comparable])
        marks.draw_finished(axes, search, [place for place in places if place[0].is_comparable])
        best = search.best
        if best is not None and any(one is best for one, *_ in points):
            marks.draw_best(axes, _aside(across, best), _aside(up, best))
        _draw_scale(figure, search, (low, high), height)
        marks.legend(figure, search, 0.9, 0.05, stopped=search.common_epoch is not None)
        style.put_title(figure, contour_title(search))
    return figure


def contour_title(search: Searched) -> str:
    """Title of the figure: a question that names the two axes."""
    chosen = contour_axes(search)
    assert chosen is not None  # only called where there is a figure
    first, second = (words(axis.name).full for axis in chosen)
    return f"Where in {first} and {second} are the best trials?"


def smoothed(x: Grid, y: Grid, z: Grid, at_x: Grid, at_y: Grid, widths: tuple[float, float]) -> tuple[Grid, Grid]:
    """Return the mean of z around each place, weighted by Gaussians of these widths, and the sum of weights there."""
    mean, total = np.empty(at_x.shape), np.empty(at_x.shape)
    for part in _portions(at_x.size, len(z)):
        exponent = ((at_x.flat[part][:, None] - x) / widths[0]) ** 2 + ((at_y.flat[part][:, None] - y) / widths[1]) ** 2
        weights = np.exp(-0.5 * exponent)
        total.flat[part] = sums = weights.sum(axis=-1)
        mean.flat[part] = (weights * z).sum(axis=-1) / np.maximum(sums, 1e-300)
    return mean, total


def _portions(places: int, trials: int) -> Iterator[slice]:
    """Divide places into portions, so that what is computed of each place and trial takes a few megabytes."""
    step = max(1, _TOGETHER // max(1, trials))
    yield from (slice(start, start + step) for start in range(0, places, step))


def _position(axis: Axis, attempt: Attempt) -> float | None:
    return axis.position(attempt.values[axis.name]) if axis.name in attempt.values else None


def _aside(axis: Axis, attempt: Attempt) -> float:
    at = marks.place(axis, attempt)
    assert at is not None  # only trials to which both axes apply are drawn
    return at


def _shown_span(search: Searched, z: Grid) -> tuple[float, float]:
    """Return the scores at the ends of the colour scale: the worst tenth and the best.

    Scores outside have the colour of the nearer end.
    """
    if search.objective.is_larger_better:
        return float(np.quantile(z, 0.1)), float(z.max())
    return float(z.min()), float(np.quantile(z, 0.9))


def _width(count: int) -> float:
    """Width of the Gaussian by Scott's rule on positions from 0 to 1, within limits that are visible and honest."""
    return float(np.clip(0.29 * count ** (-1 / 6), 0.05, 0.14))


def _draw_map(axes: Axes, search: Searched, x: Grid, y: Grid, z: Grid, span: tuple[float, float]) -> None:
    ticks = np.linspace(0, 1, _CELLS)
    at_x, at_y = np.meshgrid(ticks, ticks)
    width = _width(len(z))
    mean, total = smoothed(x, y, z, at_x, at_y, (width, width))
    nearest = np.empty(at_x.shape)
    for part in _portions(at_x.size, len(z)):
        squares = (at_x.flat[part][:, None] - x) ** 2 + (at_y.flat[part][:, None] - y) ** 2
        nearest.flat[part] = np.sqrt(squares.min(axis=-1))
    known = np.ma.masked_where((nearest > 1.3 * width) | (total < 0.4), mean)
    low, high = span
    if not search.objective.is_larger_better:
        known, (low, high) = -known, (-high, -low)
    levels = np.linspace(low, high, _LEVELS + 1)[:-1]
    # Each level lies on the ones below, so that no seams show between them.
    alpha = 1 - (1 - _STRONGEST) ** (1 / _LEVELS)
    heat = style.THEME["heat"]
    axes.contourf(at_x, at_y, known, levels=[-1e30, 1e30], colors=[heat], alpha=0.06)
    for level in levels:
        if float(known.max()) > level:
            axes.contourf(at_x, at_y, known, levels=[level, 1e30], colors=[heat], alpha=alpha)


def _draw_bands(
    axes: Axes, search: Searched, across: Axis, up: Axis, known: tuple[Grid, Grid, Grid], span: tuple[float, float]
) -> None:
    """A band for each listed value along y: cells where x is a list too, smoothed where x is a range."""
    x, y, z = known
    half = 0.46 / max(1, len(up.listed) - 1)
    for position in sorted(set(y.tolist())):
        mine = np.isclose(y, position)
        if across.is_range:
            cells, width = np.linspace(0, 1, _CELLS), _width(int(mine.sum())) * 0.7
            mean, _ = smoothed(x[mine], y[mine], z[mine], cells, np.full(_CELLS, position), (width, 1.0))
            reached = np.abs(cells[:, None] - x[mine]).min(axis=-1) <= width
            step = cells[1] - cells[0]
        else:
            cells = np.array(sorted(set(x[mine].tolist())))
            mean = np.array([z[mine & np.isclose(x, cell)].mean() for cell in cells])
            reached, step = np.ones(len(cells), dtype=bool), 0.92 / max(1, len(across.listed) - 1)
        for cell, value, shown in zip(cells, mean, reached, strict=True):
            if shown:
                box = (cell - step / 2, position - half), step, 2 * half
                alpha = _strength(search, float(value), span)
                axes.add_patch(Rectangle(*box, facecolor=style.THEME["heat"], alpha=alpha, linewidth=0))


def _strength(search: Searched, value: float, span: tuple[float, float]) -> float:
    low, high = span
    share = float(np.clip((value - low) / (high - low), 0, 1)) if high > low else 0.5
    return 0.06 + (_STRONGEST - 0.06) * (share if search.objective.is_larger_better else 1 - share)


def _draw_scale(figure: Figure, search: Searched, span: tuple[float, float], height: float) -> None:
    width, _ = figure.get_size_inches()
    axes = style.axes_at(figure, width - 0.9, 0.4, 0.16, min(height, 2.2))
    low, high = span
    ends = (low, high) if search.objective.is_larger_better else (high, low)
    for step in range(_LEVELS):
        value = ends[0] + (step + 0.5) / _LEVELS * (ends[1] - ends[0])
        alpha = _strength(search, value, span)
        axes.add_patch(Rectangle((0, step / _LEVELS), 1, 1 / _LEVELS, facecolor=style.THEME["heat"], alpha=alpha,
                                 linewidth=0))  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([0, 0.5, 1], [search.objective.text(ends[0] + s * (ends[1] - ends[0])) for s in (0, 0.5, 1)])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
