"""Several objectives against each other, and the trials that no other beats in all of them."""

from __future__ import annotations

import itertools

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsearch.evidence.searches import Attempt, Searched, thinned
from cnnsearch.evidence.shown import MOST_POINTS, selection
from cnnsearch.evidence.space import Objective
from cnnsearch.plots import marks, style

_MOST_PAIRS = 6
_LOG_RATIO = 20


def pareto_front(search: Searched) -> Figure | None:
    """Draw a scatter of each pair of objectives; None with one objective, or without a finished trial."""
    if len(search.objectives) < 2 or not search.front:
        return None
    pairs = list(itertools.combinations(search.objectives, 2))[:_MOST_PAIRS]
    columns = 1 if len(pairs) == 1 else min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    width, height = (6.2, 3.5) if len(pairs) == 1 else (2.35, 2.2)
    left, gap, between = 0.8, 0.75, 0.75
    with style.drawing():
        figure = style.new_figure(left + columns * (width + gap), 0.4 + rows * (height + between))
        for index, (a, b) in enumerate(pairs):
            i, j = divmod(index, columns)
            axes = style.axes_at(figure, left + j * (width + gap), 0.4 + i * (height + between), width, height)
            _draw_pair(axes, search, a, b, alone=len(pairs) == 1)
        _legend(figure, search, left)
        style.put_title(figure, pareto_title(search))
    return figure


def pareto_title(search: Searched) -> str:
    """Title of the figure: how many trials are on the front."""
    total = sum(one.is_comparable for one in search.attempts)
    if len(search.front) == 1:
        return f"One trial is best in all {len(search.objectives)} objectives"
    against = " against ".join(one.label for one in search.objectives)
    return f"{len(search.front)} of {total:,} trials are beaten by no other: {against}"


def _draw_pair(axes: Axes, search: Searched, up: Objective, across: Objective, *, alone: bool) -> None:
    """Draw `across` along x and `up` along y; the front as diamonds, joined if this is the only pair."""

    def place(one: Attempt) -> tuple[float, float]:
        return one.scores[across.column], one.scores[up.column]

    whole = [o for o in search.attempts if o.is_comparable and across.column in o.scores and up.column in o.scores]
    on_front = {one.number for one in search.front}
    others = selection(search, [one for one in whole if one.number not in on_front])
    marks.draw_finished(axes, search, [(one, *place(one)) for one in others])
    accent = style.THEME["accent"]
    front = sorted((place(one) for one in thinned(search.front, MOST_POINTS)), key=lambda at: at[0])
    x, y = zip(*front, strict=True)
    if alone:
        axes.plot(x, y, color=accent, linewidth=1.4, drawstyle="steps-post", zorder=4)
    axes.plot(
        x, y, "D", color=accent, markersize=6 if alone else 4.5, markeredgecolor=style.THEME["paper"],
        markeredgewidth=0.8, linestyle="none", zorder=5, gid="front",
    )  # fmt: skip
    for objective, which in ((across, "x"), (up, "y")):
        _scale(axes, objective, which, [one.scores[objective.column] for one in whole])
    axes.grid(axis="both")


def _scale(axes: Axes, objective: Objective, which: str, values: list[float]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = min(values), max(values)
    marks.score_axis(axes, objective, which)
    if objective.column in ("seconds", "parameters", "model_bytes") and low > 0 and high / low > _LOG_RATIO:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_minor_formatter(lambda *_: "")
        marks.score_axis(axes, objective, which)
        axis.set_label_text(f"{objective.label}, log scale")
        (axes.set_xlim if which == "x" else axes.set_ylim)(low / 1.3, high * 1.3)
    else:
        limits = marks.score_limits(objective, values) if objective.column == "val_loss" else _padded(low, high)
        (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
        axes.locator_params(axis="x" if which == "x" else "y", nbins=5)


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05 * max(1.0, abs(high))
    return low - pad, high + pad


def _legend(figure: Figure, search: Searched, left: float) -> None:
    colours = marks.colours(search)
    handles = [style.dot("o", colour, colour, style.shorten(model, 24)) for model, colour in colours.items()]
    if not marks.has_models(search):
        handles[0].set_label("trained to the end")
    accent = style.THEME["accent"]
    handles.append(style.dot("D", accent, accent, "beaten by no other"))
    style.legend(figure, handles, left - 0.05, 0.05)
