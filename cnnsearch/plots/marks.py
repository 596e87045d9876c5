"""How the figures of a search draw its trials, its axes and its scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnnsearch.evidence.searches import Attempt, Searched
from cnnsearch.evidence.space import Axis, Objective
from cnnsearch.plots import style
from cnnsearch.spec.axis_words import format_value, words
from cnnsearch.spec.metric import MEASURES

_DENSE, _SPARSE = 400, 60


def colours(search: Searched) -> dict[str, str]:
    """Model -> its colour, for the models of the search."""
    models = list(dict.fromkeys(one.model for one in search.attempts))
    return {model: style.colour_of(model, search.recorded.models) for model in models}


def has_models(search: Searched) -> bool:
    """Whether the search tried several models, so that each is drawn in its colour."""
    return len({one.model for one in search.attempts}) > 1


def dot_size(count: int) -> float:
    """Diameter in points of each of `count` dots."""
    return 5.0 if count <= _SPARSE else 3.6 if count <= _DENSE else 2.4


def faintness(count: int) -> float:
    """Opacity of each of `count` dots."""
    return 0.9 if count <= _SPARSE else 0.6 if count <= _DENSE else 0.4


def draw_finished(axes: Axes, search: Searched, points: Sequence[tuple[Attempt, float, float]]) -> None:
    """Draw trials trained to their end as (trial, x, y), in the colours of their models."""
    count = len(search.scored)
    alpha, size = faintness(count), dot_size(count)
    for model, colour in colours(search).items():
        mine = [(x, y) for one, x, y in points if one.model == model]
        if mine:
            x, y = zip(*mine, strict=True)
            axes.plot(
                x, y, "o", color=colour, markersize=size, alpha=alpha, markeredgewidth=0, zorder=3, gid="finished"
            )


def draw_stopped(axes: Axes, search: Searched, points: Sequence[tuple[Attempt, float, float]]) -> None:
    """Draw trials that were stopped early as (trial, x, y), at the score they had reached."""
    if points:
        _, x, y = zip(*points, strict=True)
        count = len(search.stopped)
        axes.plot(
            x, y, "o", color=style.THEME["faint"], markerfacecolor="none", markersize=dot_size(count),
            markeredgewidth=0.7, alpha=faintness(count), zorder=2, gid="stopped",
        )  # fmt: skip


def draw_best(axes: Axes, x: float, y: float) -> None:
    """Draw the best trial."""
    axes.plot(
        [x], [y], "D", color=style.THEME["accent"], markersize=7, markeredgecolor=style.THEME["paper"],
        markeredgewidth=1, zorder=6, clip_on=False, gid="best",
    )  # fmt: skip


def legend(
    figure: Figure,
    search: Searched,
    left: float,
    top: float,
    extra: Iterable[Line2D] = (),
    *,
    stopped: bool = True,
    columns: int | None = None,
) -> None:
    """Add a legend of the marks that occur in the search; `stopped` is false if stopped trials are not drawn."""
    ink = style.THEME["ink"]
    if has_models(search):
        handles = [
            style.dot("o", colour, colour, style.shorten(model, 24)) for model, colour in colours(search).items()
        ]
    else:
        colour = next(iter(colours(search).values()), ink)
        handles = [style.dot("o", colour, colour, "trained to the end")]
    if stopped and search.stopped:
        handles.append(style.dot("o", style.THEME["faint"], "none", "stopped early"))
    handles += [*extra, style.dot("D", style.THEME["accent"], style.THEME["accent"], "best")]
    style.legend(figure, handles, left, top, columns)


def ticks(axis: Axis, most: int = 5) -> list[tuple[float, str]]:
    """Positions of ticks along the axis, and the text of each."""
    if axis.listed:
        every = math.ceil(len(axis.listed) / 8)
        values = [(axis.position(value), format_value(value)) for value in axis.listed][::every]
        return [(position, style.shorten(text, 14)) for position, text in values if position is not None]
    steps = np.asarray(MaxNLocator(most - 1).tick_values(axis.low, axis.high))
    numbers = _powers(axis, most) if axis.is_log else [float(step) for step in steps]
    found = [(axis.position(number), _number(number)) for number in numbers]
    return [(position, text) for position, text in found if position is not None]


def _powers(axis: Axis, most: int) -> list[float]:
    low, high = math.log10(axis.low), math.log10(axis.high)
    powers = list(range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1))
    if len(powers) < 3:
        digits = (1, 3) if high - low > 0.8 else (1, 2, 3, 5, 7)
        ladder = [digit * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for digit in digits]
        return [number for number in ladder if axis.low * 0.9999 <= number <= axis.high * 1.0001]
    return [10.0**power for power in powers[:: math.ceil(len(powers) / most)]]


def _number(number: float) -> str:
    return format_value(float(f"{number:.3g}") + 0.0)


def lay_out(axes: Axes, axis: Axis, which: str, *, named: bool = True) -> None:
    """Lay an axis of the search along x or y, as positions from 0 to 1."""
    places = ticks(axis)
    pad = 0.5 / max(1, len(axis.listed) - 1) if axis.listed else 0.04
    limits = (-pad, 1 + pad)
    positions, names = [position for position, _ in places], [name for _, name in places]
    label = words(axis.name).full + (", log scale" if axis.is_log and axis.is_range else "")
    if which == "x":
        axes.set_xlim(*limits)
        axes.set_xticks(positions, names)
        axes.set_xlabel(label if named else "")
        if sum(len(name) for name in names) > 26:
            axes.tick_params(axis="x", labelrotation=20)
    else:
        axes.set_ylim(*limits)
        axes.set_yticks(positions, names)
        axes.set_ylabel(label if named else "")


def place(axis: Axis, attempt: Attempt) -> float | None:
    """The position of a trial on an axis, a little beside a listed value so that trials do not hide each other."""
    if axis.name not in attempt.values:
        return None
    position = axis.position(attempt.values[axis.name])
    if position is None or axis.is_range:
        return position
    return position + 0.5 * aside(attempt) / max(1, len(axis.listed) - 1)


def aside(attempt: Attempt) -> float:
    """Offset of a trial from -0.5 to 0.5; steps of the golden ratio spread consecutive trials evenly."""
    return (attempt.number * 0.6180339887498949) % 1 - 0.5


def score_limits(objective: Objective, scores: Sequence[float]) -> tuple[float, float]:
    """The span of scores with a margin. A few huge losses are cut off: they would flatten all the rest."""
    low, high = min(scores), max(scores)
    if not objective.is_larger_better:
        high = min(high, low + 1.6 * (float(np.quantile(scores, 0.95)) - low) or high)
    pad = 0.06 * (high - low) or 0.05
    return low - pad, high + pad


def score_axis(axes: Axes, objective: Objective, which: str = "y") -> None:
    """Label x or y with an objective, and format its ticks."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(objective.label)
    if objective.column in MEASURES and MEASURES[objective.column].is_share:
        style.percent_axis(axes, which)
    else:
        axis.set_major_formatter(lambda value, _: objective.text(value) if value >= 0 else "")
