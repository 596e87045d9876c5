"""The optimisation history: each trial's score in the order of suggestion, and the best so far."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnnsearch.evidence.searches import Searched, thinned
from cnnsearch.evidence.shown import MOST_POINTS, selection
from cnnsearch.plots import marks, style

_FEW = 40


def optimisation_history(search: Searched, *, narrow: bool = False) -> Figure | None:
    """Draw a dot for each trial, and the best so far as steps; None if no trial was trained to its end.

    With `narrow`, for a phone.
    """
    if search.best is None:
        return None
    with style.drawing():
        width, top = (style.PHONE, 0.8) if narrow else (8.2, 0.4)
        figure = style.new_figure(width, top + 3.5)
        axes = style.axes_at(figure, 0.75, top, width - 0.9, 2.95)
        column = search.objective.column
        stopped = [one for one in search.stopped if column in one.scores]
        for draw, some in ((marks.draw_stopped, stopped), (marks.draw_finished, search.scored)):
            draw(axes, search, [(one, float(one.number), one.scores[column]) for one in selection(search, some)])
        low, high = marks.score_limits(search.objective, [one.scores[column] for one in [*search.scored, *stopped]])
        axes.set_ylim(low, high)
        _draw_running_best(axes, search)
        _draw_lost(axes, search)
        marks.draw_best(axes, search.best.number, search.score(search.best))
        count = len(search.attempts)
        axes.set_xlim(1 - 0.015 * count - 0.3, count + 0.015 * count + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("trial, in the order of suggestion")
        axes.grid(axis="y")
        marks.score_axis(axes, search.objective)
        marks.legend(figure, search, 0.0 if narrow else 0.7, 0.05, _extra(search), columns=2 if narrow else None)
        style.put_title(figure, history_title(search))
    return figure


def history_title(search: Searched) -> str:
    """Title of the figure: which trial in the order of suggestion was the best."""
    best, total = search.best, len(search.attempts)
    if best is None:
        return "When did the best trial come?"
    if total == 1:
        return "The search had one trial"
    since = total - best.number
    after = f"; none of the {since:,} after it was better" if since > 1 else ""
    return f"The best came as trial {best.number:,} of {total:,}{after}"


def _draw_running_best(axes: Axes, search: Searched) -> None:
    steps = list(search.running_best())
    x = [float(one.number) for one in steps] + [float(len(search.attempts))]
    y = [search.score(one) for one in steps] + [search.score(steps[-1])]
    axes.plot(x, y, drawstyle="steps-post", color=style.THEME["accent"], linewidth=1.8, zorder=5, gid="best-so-far")


def _draw_lost(axes: Axes, search: Searched) -> None:
    """Mark trials without a score along the bottom of the axes."""
    if search.lost:
        numbers = [one.number for one in thinned(search.lost, MOST_POINTS)]
        size = 4.5 if len(search.lost) <= _FEW else 3
        axes.plot(
            numbers, [0.025] * len(numbers), "x", color=style.THEME["ink"], transform=axes.get_xaxis_transform(),
            markersize=size, markeredgewidth=1, zorder=4, gid="lost",
        )  # fmt: skip


def _extra(search: Searched) -> list[Line2D]:
    kinds = [kind for kind in ("failed", "diverged") if any(one.status == kind for one in search.lost)]
    found = []
    if kinds:
        found.append(
            Line2D(
                [], [], marker="x", color=style.THEME["ink"], linestyle="none", markersize=4.5, label=" or ".join(kinds)
            )
        )
    return [*found, Line2D([], [], color=style.THEME["accent"], linewidth=1.8, label="best so far")]
