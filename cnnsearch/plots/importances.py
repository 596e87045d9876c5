"""How much of the spread of scores each axis explains, as bars with intervals, beside what random numbers get."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsearch.evidence.comparisons import in_percent
from cnnsearch.evidence.importance import Importances
from cnnsearch.evidence.searches import Searched
from cnnsearch.plots import style
from cnnsearch.plots.dots import beside
from cnnsearch.spec.axis_words import words
from cnnsearch.words import listed

_ROW = 0.3


def importance_bars(search: Searched) -> Figure | None:
    """Draw a bar for each axis, the most important first; None if too few trials finished to compute importances."""
    found = search.importances
    if found is None:
        return None
    names = found.ranked
    with style.drawing():
        left, width = 1.9, 4.6
        figure = style.new_figure(left + width + 1.5, 0.3 + _ROW * (len(names) + 0.4) + 0.5)
        axes = style.axes_at(figure, left, 0.3, width, _ROW * (len(names) + 0.4))
        draw_shares(
            axes, found, {name: (words(name).full, in_percent(*found.shares[name], decimals=0)) for name in names}
        )
        at = f" at epoch {search.common_epoch}" if search.common_epoch else ""
        axes.set_xlabel(f"share of the variance of {search.objective.label}{at}")
        style.put_title(figure, importance_title(search))
    return figure


def draw_shares(axes: Axes, found: Importances, texts: Mapping[str, tuple[str, str]]) -> None:
    """Draw a row for each axis: a bar with its interval, beside what random numbers get.

    Args:
        axes: of the figure.
        found: what the bars show.
        texts: name of each axis, from the top -> the texts on the left and on the right of its bar.
    """
    for row, (name, (left, right)) in enumerate(texts.items()):
        share, stands_out = found.shares[name], found.stands_out(name)
        axes.barh(
            row, share.value, height=0.62, color=style.THEME["heat"], alpha=0.85 if stands_out else 0.3, linewidth=0
        )
        axes.plot([share.low, share.high], [row, row], color=style.THEME["ink"], linewidth=1.4, zorder=3)
        ink, weight = style.THEME["ink" if stands_out else "muted"], "bold" if stands_out else "normal"
        for x, side, what in ((-0.02, "right", left), (1.03, "left", right)):
            beside(axes, x, row, what, ha=side, color=ink, fontweight=weight)
    axes.axvline(found.noise, color=style.THEME["muted"], linewidth=1.1, linestyle=(0, (1, 1.5)), gid="noise")
    axes.annotate(
        "random numbers", (found.noise, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
        textcoords="offset points", ha="left", va="bottom", fontsize=style.SMALL, color=style.THEME["muted"],
    )  # fmt: skip
    most = max([found.noise, *(share.high for share in found.shares.values())])
    axes.set_xlim(0, min(1.0, 1.05 * most + 0.01))
    axes.set_ylim(len(texts) - 0.4, -0.6)
    axes.set_yticks([])
    axes.grid(axis="x")
    style.percent_axis(axes, "x")


def importance_title(search: Searched) -> str:
    """Title of the figure: which axes stand out, or a question if none does."""
    found = search.importances
    leaders = [name for name in found.ranked if found.stands_out(name)] if found else []
    if found is None or not leaders:
        return "Which axes matter? None stands out from random numbers"
    names = listed([f"the {words(name).full}" for name in leaders[:3]])
    share = 100 * sum(found.shares[name].value for name in leaders[:3])
    at = f" at epoch {search.common_epoch}" if search.common_epoch else ""
    explains = "explains" if len(leaders) == 1 else "explain"
    return (
        f"{names[:1].upper()}{names[1:]} {explains} about {share:.0f} % of the variance of {search.objective.label}{at}"
    )
