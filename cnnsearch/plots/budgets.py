"""What early stopping did: how many trials reached each rung and went on, and where the epochs went."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from cnnsearch.evidence.searches import Attempt, Rung, Searched, spans, thinned
from cnnsearch.evidence.shown import selection
from cnnsearch.plots import marks, style
from cnnsearch.spec.stage import Asha, Hyperband

MOST_CURVES = 150
_MOST_BARS = 12


def rungs(search: Searched, *, narrow: bool = False) -> Figure | None:
    """Trials that reached each rung and were stopped there, beside their curves; None where none was stopped.

    With `narrow`, above their curves, for a phone.
    """
    steps = search.rungs()
    if not steps:
        return None
    with style.drawing():
        figure, (left, right) = _panels(narrow=narrow, top=0.45, height=2.9)
        _draw_rungs(left, search, steps)
        _draw_curves(right, search)
        _legend(figure, search, narrow=narrow)
        style.put_title(figure, rungs_title(search))
    return figure


def _panels(*, narrow: bool, top: float, height: float) -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure with two panels beside each other, or below each other, with room for legends above each."""
    if narrow:
        width, second = style.PHONE - 0.8, _second(top, height)
        figure = style.new_figure(style.PHONE, second + height + 0.6)
        return figure, (
            style.axes_at(figure, 0.7, top, width, height),
            style.axes_at(figure, 0.7, second, width, height),
        )
    figure = style.new_figure(8.9, top + height + 0.6)
    return figure, (style.axes_at(figure, 0.7, top, 3.3, height), style.axes_at(figure, 5.0, top, 3.6, height))


def _second(top: float, height: float) -> float:
    """Where the lower of two panels starts: below the first with its labels, and below a legend of two rows."""
    return top + height + 1.35


def rungs_title(search: Searched) -> str:
    """How many were stopped."""
    total, stopped = len(search.attempts), len(search.pruned)
    left = f"{search.done:,} trained to the end" if search.done else "none trained to the end"
    return f"{stopped:,} of {total:,} trials were stopped early; {left}"


def _draw_rungs(axes: Axes, search: Searched, steps: Sequence[Rung]) -> None:
    accent, faint = style.THEME["accent"], style.THEME["faint"]
    ends = [(step.name, step.reached, step.stopped) for step in steps]
    if search.done:
        ends.append(("end", search.done, 0))
    for index, (_, reached, stopped) in enumerate(ends):
        axes.bar(index, reached - stopped, width=0.7, color=accent, alpha=0.75, linewidth=0)
        axes.bar(index, stopped, bottom=reached - stopped, width=0.7, color=faint, alpha=0.55, linewidth=0)
        axes.annotate(
            f"{reached:,}", (index, reached), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
            fontsize=style.SMALL, color=style.THEME["ink"],
        )  # fmt: skip
    axes.set_xticks(range(len(ends)), [name for name, *_ in ends])
    if len(ends) > 6:
        axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlabel("epoch")
    axes.set_ylabel("trials that reached it")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(0, 1.12 * max(reached for _, reached, _ in ends))
    axes.grid(axis="y")


def _draw_curves(axes: Axes, search: Searched) -> None:
    """Validation accuracy by epoch: the stopped faint, those trained to the end in their model's colour."""
    colours = marks.colours(search)
    chosen = [*thinned(search.stopped, 2 * MOST_CURVES // 3), *selection(search, search.scored, MOST_CURVES // 3)]
    highest = 1
    for one in chosen:
        epochs, values = search.recorded.curve(one.trial_id, "val_accuracy")
        epochs, values = epochs[epochs >= 1], values[epochs >= 1]
        if not len(epochs):
            continue
        highest = max(highest, int(epochs[-1]))
        is_best = search.best is not None and one.number == search.best.number
        colour = style.THEME["accent"] if is_best else colours[one.model] if one.is_comparable else style.THEME["faint"]
        width, alpha = (2.2, 1.0) if is_best else (0.9, 0.55) if one.is_comparable else (0.7, 0.45)
        axes.plot(
            epochs, values, color=colour, linewidth=width, alpha=alpha,
            zorder=5 if is_best else 3 if one.is_comparable else 2,
            marker="o" if len(epochs) == 1 else None, markersize=2, gid="curve",
        )  # fmt: skip
        if one.status == "pruned" and len(epochs) > 1:
            axes.plot(epochs[-1:], values[-1:], "o", color=colour, markersize=2, alpha=0.7, zorder=2)
    ends = [one.epochs for one in search.pruned]
    if isinstance(search.spec.stop_early, Asha | Hyperband) and highest > 8:
        axes.set_xscale("log")
        shown = sorted({*(e for e in set(ends) if len(set(ends)) <= 8), 1, highest})
        axes.set_xticks(shown, [f"{tick}" for tick in shown])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("epoch" + (", log scale" if axes.get_xscale() == "log" else ""))
    axes.set_ylabel("validation accuracy")
    style.percent_axis(axes, "y")
    axes.grid(axis="y")


def _legend(figure: Figure, search: Searched, *, narrow: bool) -> None:
    accent, faint = style.THEME["accent"], style.THEME["faint"]
    bars = [Patch(color=accent, alpha=0.75, linewidth=0, label="went on"),
            Patch(color=faint, alpha=0.55, linewidth=0, label="stopped here")]  # fmt: skip
    lines = [Line2D([], [], color=faint, linewidth=0.9, label="stopped")]
    for model, colour in marks.colours(search).items():
        if any(one.model == model for one in search.scored):
            label = style.shorten(model, 16) if marks.has_models(search) else "trained to the end"
            lines.append(Line2D([], [], color=colour, linewidth=1.2, label=label))
    lines += [Line2D([], [], color=accent, linewidth=2.2, label="best")] if search.best else []
    columns = min(3, len(lines)) if narrow else len(lines)
    left, top = (0.0, _second(0.45, 2.9) - 0.5) if narrow else (4.95, 0.05)
    style.legend(figure, bars, 0.65, 0.05, handletextpad=0.4, columnspacing=1.1, handlelength=1.2)
    style.legend(figure, lines, left, top, columns, handletextpad=0.4, columnspacing=1.1, handlelength=1.2)


def trials_by_budget(search: Searched, *, narrow: bool = False) -> Figure | None:
    """How many trials trained for how long, and how many epochs went into them; None where none was stopped.

    With `narrow`, one above the other, for a phone.
    """
    trained = [one for one in search.attempts if one.epochs > 0]
    if not search.pruned or len({one.epochs for one in trained}) < 2:
        return None
    bins = spans(sorted({one.epochs for one in trained}), _MOST_BARS)
    with style.drawing():
        figure, panels = _panels(narrow=narrow, top=0.62 if narrow else 0.4, height=2.3)
        for axes, by_epochs in zip(panels, (False, True), strict=True):
            for index, (first, last) in enumerate(bins):
                base = 0.0
                for status, colour, alpha in _KINDS:
                    mine = [one for one in trained if first <= one.epochs <= last and _kind(one) == status]
                    height = float(sum(one.epochs for one in mine) if by_epochs else len(mine))
                    axes.bar(index, height, bottom=base, width=0.7, color=style.THEME[colour], alpha=alpha, linewidth=0)
                    base += height
            names = [f"{first}" if first == last else f"{first}–{last}" for first, last in bins]
            axes.set_xticks(range(len(bins)), names)
            if len(bins) > 6:
                axes.tick_params(axis="x", labelrotation=35)
            axes.set_xlabel("epochs trained")
            axes.set_ylabel("epochs spent on them" if by_epochs else "trials")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.grid(axis="y")
        _budget_legend(figure, trained, narrow=narrow)
        style.put_title(figure, budget_title(search))
    return figure


_KINDS = (("done", "accent", 0.75), ("pruned", "faint", 0.55), ("lost", "ink", 0.75))


def _kind(one: Attempt) -> str:
    return one.status if one.status in ("done", "pruned") else "lost"


def budget_title(search: Searched) -> str:
    """What share of all epochs went into trials that were stopped, and what full training would have taken."""
    total = sum(one.epochs for one in search.attempts)
    stopped = sum(one.epochs for one in search.pruned)
    full = sum(one.planned or one.epochs for one in search.attempts)
    if not search.pruned or full <= 0:
        return "How long did trials train?"
    return (
        f"Early stopping trained {100 * total / full:.0f} % of all epochs, and {100 * stopped / total:.0f} % of "
        "these went into trials it stopped"
    )


def _budget_legend(figure: Figure, trained: Sequence[Attempt], *, narrow: bool) -> None:
    names = {"done": "trained to the end", "pruned": "stopped early", "lost": "failed or diverged"}
    handles = [
        Patch(color=style.THEME[colour], alpha=alpha, linewidth=0, label=names[kind])
        for kind, colour, alpha in _KINDS
        if any(_kind(one) == kind for one in trained)
    ]
    left, columns = (0.0, 2) if narrow else (0.65, 3)
    style.legend(figure, handles, left, 0.05, columns, handletextpad=0.4, columnspacing=1.1, handlelength=1.2)
