"""All settings as dots: test accuracy with its interval, grouped by model, beside the line of chance."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsearch.evidence.comparisons import LEAST_SEEDS, Score
from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence, as_evidence
from cnnsearch.evidence.shown import most_dots
from cnnsearch.plots import style
from cnnsearch.results.tables import Tables
from cnnsearch.spec.metric import DEFAULT

_ROOM = 44  # characters of a label
_NARROW_ROOM = 42
ROW = 0.25  # inches
NARROW_ROW = 0.43
_NEAR = 0.25
"""Chance is inside the axes if it is no further from the scores than this share of their span; else at their edge."""


def all_settings(source: Tables | Evidence, *, narrow: bool = False) -> Figure | None:
    """Draw a dot for each of the best `most_dots` settings by validation accuracy; None if nothing finished.

    With `narrow`, names are above their dots instead of beside them, for a phone.
    """
    evidence = as_evidence(source)
    scored = [(c, score) for c in evidence.configurations if (score := evidence.score(c)) is not None]
    if not scored:
        return None
    shown = sorted(scored, key=lambda item: (-item[0].worth, item[0].order))
    shown = shown[: most_dots(evidence)]
    with style.drawing():
        return _draw(evidence, shown, len(scored), narrow=narrow)


def _label(evidence: Evidence, configuration: Configuration, room: int = _ROOM) -> str:
    again = f" · {len(configuration.trial_ids)} fresh seeds" if configuration.confirms else ""
    label = evidence.label(configuration, omit=("model",), separator=" · ")
    if len(label) > room and configuration.key in evidence.attempts:
        label = evidence.brief(configuration, room)
    return label + again


def settings_title(evidence: Evidence) -> str:
    """Title of the figure: the best setting, and how many others cannot be told from it."""
    best = evidence.best
    if best is None:
        return "Which setting is best?"
    if not evidence.beats_chance(best):
        if evidence.any_beats_chance:
            return "The best by validation is not clearly better than chance"
        return "No setting is clearly better than chance"
    others, near = len(evidence.contenders) - 1, len(evidence.near_best)
    if others == 0:
        return f"{evidence.label(best)}, the one setting {'confirmed' if evidence.is_confirmed else 'tried'}, works"
    if not evidence.tells_settings_apart:
        takes = f"comparing settings takes {LEAST_SEEDS} {evidence.unit}s of each"
        return f"{evidence.label(best)} is best by validation; {takes}"
    name = evidence.label(best)
    if len(name) > 2 * _ROOM and best.key in evidence.attempts:
        name = evidence.brief(best, _ROOM)
    if evidence.better_than_best:
        return f"{name} is best by validation, but not on the test images"
    if near == 0:
        which = {1: "the other setting", 2: "both other settings"}.get(others, f"all {others} other settings")
        return f"{name} is better than {which}"
    if near == others:
        return f"No setting is clearly worse than the best by validation, {name}"
    return f"{near} of {others} other settings may be as good as {name}"


def _draw(evidence: Evidence, shown: list[tuple[Configuration, Score]], total: int, *, narrow: bool) -> Figure:
    models = [
        model for model in evidence.models if any(configuration.model == model for configuration, _ in shown)
    ] or [""]
    headed = len(evidence.models) > 1
    room = _NARROW_ROOM if narrow else _ROOM
    labels = {configuration.key: _label(evidence, configuration, room) for configuration, _ in shown}
    left = min(3.4, 0.35 + 0.07 * max(len(text) for text in labels.values()))
    width, right, row = 3.7, 1.85, ROW
    if narrow:
        left, width, right, row = 0.05, 2.05, style.PHONE - 2.1, NARROW_ROW
    top = 0.62 if not narrow else 0.85
    rows = len(shown) + (1.15 * len(models) if headed else 0)
    height = row * (rows + 0.5)
    figure = style.new_figure(left + width + right, top + height + 0.5)
    axes = style.axes_at(figure, left, top, width, height)
    near = {c.key for c in evidence.near_best}
    y = 0.0
    for model in models:
        group = [item for item in shown if item[0].model == model]
        group.sort(key=lambda item: -evidence.metric.sign * item[1].value)
        colour = style.colour_of(model, evidence.models)
        if headed:
            y += 0.15
            where: Any = {"x": 0, "ha": "left"} if narrow else {"x": -0.02, "ha": "right"}
            beside(axes, y=y, text=model, color=colour, fontweight="bold", **where)
            y += 1
        for configuration, score in group:
            is_best = evidence.best is not None and configuration.key == evidence.best.key
            draw_row(
                axes, y, labels[configuration.key], score, colour,
                is_best=is_best, is_near=configuration.key in near, narrow=narrow,
            )  # fmt: skip
            y += 1
    _finish(axes, evidence, [score for _, score in shown], y)
    told = "not a contender, or worse than one" if evidence.is_confirmed else "worse than another"
    if narrow:
        kinds_legend(figure, 0, "best by validation", told, columns=1 if evidence.is_confirmed else 2)
    else:
        kinds_legend(figure, left - 0.01 * figure.get_size_inches()[0], "best by validation", told)
    if total > len(shown):
        note = f"best {len(shown)} of {total} settings by {evidence.chosen_by}"
        style.put_text(figure, left, -0.02, note, fontsize=8.5, color=style.THEME["muted"], va="bottom")
    style.put_title(figure, settings_title(evidence))
    return figure


def draw_row(
    axes: Axes,
    y: float,
    label: str,
    score: Score,
    colour: str,
    *,
    is_best: bool,
    is_near: bool,
    narrow: bool = False,
) -> None:
    """Draw one setting at height `y`: its name, its dot with interval, its numbers; the name on top if `narrow`."""
    strong = is_best or is_near
    if is_best:
        above, below = (0.72, 0.28) if narrow else (0.5, 0.5)
        axes.axhspan(y - above, y + below, color=style.THEME["accent"], alpha=0.12, linewidth=0)
    axes.plot(
        [score.low, score.high], [y, y], color=colour, linewidth=1.6, alpha=1 if strong else 0.55, solid_capstyle="butt"
    )
    axes.plot(
        [score.value], [y], "D" if is_best else "o", color=colour, markersize=6 if is_best else 5,
        markerfacecolor=colour if strong else style.THEME["paper"], markeredgewidth=1.3,
    )  # fmt: skip
    ink = style.THEME["ink"] if strong else style.THEME["muted"]
    weight = "bold" if is_best else "normal"
    if narrow:
        beside(axes, 0, y - 0.44, style.shorten(label, _NARROW_ROOM), ha="left", color=ink, fontweight=weight)
    else:
        beside(axes, -0.02, y, label, ha="right", color=ink, fontweight=weight)
    beside(axes, 1.03, y, score.text, ha="left", color=ink, fontweight=weight)


def beside(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Write beside the axes, at row `y`; `x` is in widths of the axes."""
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), va="center_baseline", **{"fontsize": 9} | options)


def _finish(axes: Axes, evidence: Evidence, scores: list[Score], rows: float) -> None:
    low, high = min(score.low for score in scores), max(score.high for score in scores)
    of_accuracy = evidence.metric.name == DEFAULT
    chance, near = evidence.chance, _NEAR * (high - low)
    is_inside = of_accuracy and low - near <= chance <= high + near
    if is_inside:
        low, high = min(low, chance), max(high, chance)
    pad = 0.03 * (high - low)
    axes.set_xlim(max(0.0, low - pad), min(1.0, high + pad) if evidence.metric.is_share else high + pad)
    axes.set_ylim(rows - 0.4, -0.6)
    if of_accuracy:
        _mark_chance(axes, chance, is_inside=is_inside, is_below=chance < low)
    score_axis(axes, evidence.judged_by, is_share=evidence.metric.is_share)


def _mark_chance(axes: Axes, chance: float, *, is_inside: bool, is_below: bool) -> None:
    """Draw chance as a line; where it is outside of the axes, point at it from their edge."""
    text, x, side = f"chance {100 * chance:.3g} %", chance, "left"
    if is_inside:
        axes.axvline(chance, color=style.THEME["muted"], linewidth=1.1, linestyle=(0, (1, 1.5)))
    elif is_below:
        text, x = f"← {text}", axes.get_xlim()[0]
    else:
        text, x, side = f"{text} →", axes.get_xlim()[1], "right"
    axes.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", ha=side,
        va="bottom", fontsize=style.SMALL, color=style.THEME["muted"], gid="chance",
    )  # fmt: skip


def score_axis(axes: Axes, label: str = "test accuracy", *, is_share: bool = True) -> None:
    """Lay out the score that settings are judged by along x, and rows without ticks along y."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if is_share:
        style.percent_axis(axes, "x")
    axes.set_xlabel(f"{label}, 95 % interval")


def kinds_legend(
    figure: Figure, left: float, best: str, told: str = "worse than another", *, columns: int | None = None
) -> None:
    """Add a legend of the three kinds of dots above the axes; `left` is in inches."""
    ink = style.THEME["ink"]
    handles = [
        style.dot("D", ink, ink, best),
        style.dot("o", ink, ink, "may be as good"),
        style.dot("o", ink, style.THEME["paper"], told),
    ]
    style.legend(figure, handles, left, 0.33 if columns is None else 0.53, columns, loc="lower left")
