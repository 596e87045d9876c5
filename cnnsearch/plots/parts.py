"""Several sweeps side by side: their best settings as dots, and accuracy against the time it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.part import Part
from cnnsearch.evidence.shown import MOST_OF_A_PART, MOST_POINTS, some_settings
from cnnsearch.plots import style
from cnnsearch.plots.dots import NARROW_ROW, ROW, beside, draw_row, kinds_legend, score_axis
from cnnsearch.words import duration

_COLOURS = ("m-purple", "m-orange", "m-sky", "m-yellow", "m-green", "m-vermillion", "m-blue")
"""Colours of sweeps. Those that stand for models elsewhere come last."""
_TICKS = (
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600,
    10_800, 36_000, 86_400, 259_200, 864_000,
)  # fmt: skip
_LEAST_SECONDS = 1e-3


def colour_of_part(index: int) -> str:
    """The colour of the sweep at this index; past the last colour they repeat."""
    return style.THEME[_COLOURS[index % len(_COLOURS)]]


def best_settings(parts: Sequence[Part], title: str, *, narrow: bool = False) -> Figure | None:
    """Draw the `MOST_OF_A_PART` best settings of each sweep by validation; None if none has a test accuracy.

    With `narrow`, names are above their dots, for a phone.
    """
    groups = []
    for index, part in enumerate(parts):
        ranked = sorted(part.evidence.configurations, key=lambda s: (s is not part.best, -s.worth, s.order))
        scored = [(s, score) for s in ranked[:MOST_OF_A_PART] if (score := part.evidence.score(s, "test")) is not None]
        if scored:
            groups.append((index, part, scored))
    if not groups:
        return None
    longest = max(len(part.evidence.label(s, separator=" · ")) for _, part, scored in groups for s, _ in scored)
    rows = sum(len(scored) + 1.15 for _, _, scored in groups)
    left, width, right, top, row = min(3.9, 0.35 + 0.07 * longest), 3.4, 1.85, 0.62, ROW
    if narrow:
        left, width, right, top, row = 0.05, 2.05, style.PHONE - 2.1, 0.85, NARROW_ROW
    where: Any = {"x": 0, "ha": "left"} if narrow else {"x": -0.02, "ha": "right"}
    with style.drawing():
        figure = style.new_figure(left + width + right, top + row * (rows + 0.5) + 0.5)
        axes = style.axes_at(figure, left, top, width, row * (rows + 0.5))
        y = 0.0
        for index, part, scored in groups:
            y += 0.15
            name = style.shorten(part.name, 40)
            beside(axes, y=y, text=name, color=style.THEME["ink"], fontweight="bold", **where)
            y += 1
            near = {c.key for c in part.evidence.near_best}
            for configuration, score in scored:
                label = style.shorten(part.evidence.label(configuration, separator=" · "), 56)
                is_best = part.best is not None and configuration.key == part.best.key
                draw_row(
                    axes, y, label, score, colour_of_part(index),
                    is_best=is_best, is_near=configuration.key in near, narrow=narrow,
                )  # fmt: skip
                y += 1
        scores = [score for _, _, scored in groups for _, score in scored]
        low, high = min(s.low for s in scores), max(s.high for s in scores)
        pad = 0.06 * (high - low)
        axes.set_xlim(max(0.0, low - pad), min(1.0, high + pad))
        score_axis(axes)
        axes.set_ylim(y - 0.4, -0.6)
        best = "best of its sweep by validation"
        if narrow:
            kinds_legend(figure, 0, best, columns=1)
        else:
            kinds_legend(figure, max(0.0, left - 0.12 * figure.get_size_inches()[0]), best)
        style.put_title(figure, title)
    return figure


def timed_settings(part: Part) -> list[Configuration]:
    """The settings of a sweep whose time is recorded, and whose accuracy on the test images is."""
    evidence = part.evidence
    return [c for c in evidence.configurations if evidence.score(c, "test") and part.seconds(c) is not None]


def most_of_each(parts: Sequence[Part]) -> int:
    """Most settings of each sweep that `accuracy_by_time` shows."""
    return max(1, MOST_POINTS // len(parts))


def _some_of(part: Part, most: int) -> list[Configuration]:
    """The settings of a sweep to draw: see `some_settings`; its best setting is among them."""
    found = timed_settings(part)
    chosen = some_settings(found, most)
    keys = {c.key for c in chosen}
    return [c for c in found if c.key in keys or c is part.best]


def accuracy_by_time(parts: Sequence[Part], title: str) -> Figure | None:
    """Draw test accuracy of every finished setting against its training seconds; None if no time is recorded."""
    points = [
        (index, part, c, score.value, max(seconds, _LEAST_SECONDS))
        for index, part in enumerate(parts)
        for c in _some_of(part, most_of_each(parts))
        if (score := part.evidence.score(c, "test")) is not None and (seconds := part.seconds(c)) is not None
    ]
    if not points:
        return None
    with style.drawing():
        figure = style.new_figure(7.6, 4.3)
        axes = style.axes_at(figure, 0.65, 0.5, 6.6, 3.2)
        axes.set_xscale("log")
        for index, part, configuration, value, seconds in points:
            is_best = part.best is not None and configuration.key == part.best.key
            score = part.evidence.score(configuration, "test")
            colour = colour_of_part(index)
            if is_best and score is not None:
                axes.plot([seconds] * 2, [score.low, score.high], color=colour, linewidth=1.4, alpha=0.7, zorder=3)
            axes.plot(
                [seconds], [value], "D" if is_best else "o", color=colour, markersize=7 if is_best else 5,
                markerfacecolor=colour if is_best else style.THEME["paper"], markeredgewidth=1.3,
                zorder=4 if is_best else 2,
            )  # fmt: skip
        _time_axis(axes, [seconds for *_, seconds in points])
        axes.grid(axis="y")
        style.percent_axis(axes, "y")
        axes.set_ylabel("test accuracy")
        _sweeps(figure, [(index, part) for index, part in enumerate(parts) if any(p[0] == index for p in points)])
        style.put_title(figure, title)
    return figure


def _time_axis(axes: Axes, seconds: Sequence[float]) -> None:
    low, high = min(seconds) / 1.6, max(seconds) * 1.6
    axes.set_xlim(low, high)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    step = math.ceil(len(ticks) / 8) or 1
    shown = ticks[::step] or [min(seconds)]
    axes.set_xticks(shown, [duration(tick) if tick >= 1 else f"{tick:.1g} s" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training time of a network, log scale")


def _sweeps(figure: Figure, parts: Sequence[tuple[int, Part]]) -> None:
    handles = [
        Line2D([], [], marker="s", linestyle="none", color=colour_of_part(index), label=style.shorten(part.name, 30))
        for index, part in parts
    ]
    ink = style.THEME["ink"]
    handles += [
        style.dot("D", ink, ink, "best by validation"),
        style.dot("o", ink, style.THEME["paper"], "other settings"),
    ]
    style.legend(figure, handles, 0.6, 0.42, min(5, len(handles)), loc="lower left")
