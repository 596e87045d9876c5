"""What a reader would see of a figure: how wide it is, its smallest text, and texts that lie on each other."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnnsearch.plots import style

LEAST_PIXELS = 9.0
PAGE_PIXELS = 944
"""The width of a figure on a page of 1,280 pixels."""
PHONE_PIXELS = 356
"""The same on a screen of 390 pixels."""


def seen(figure: Figure) -> list[tuple[Text, Bbox]]:
    """The visible texts that are inside the page's copy of a figure, each with its box in dots."""
    with style.drawing():
        figure.draw_without_rendering()
        renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        found = [
            (text, text.get_window_extent(renderer))
            for text in figure.findobj(Text)
            if isinstance(text, Text) and text.get_visible() and text.get_text().strip() and text.get_gid() != "title"
        ]
        off = [axes for axes in figure.axes if not axes.axison]
        ticks = {id(t) for axes in off for axis in (axes.xaxis, axes.yaxis) for t in axis.findobj(Text)}
        hidden = {
            id(label)
            for axes in figure.axes
            for axis, span in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
            for label in (tick.label1, tick.label2)
            if not min(span) <= tick.get_loc() <= max(span)
        }
    return [(text, box) for text, box in found if id(text) not in ticks | hidden and box.width > 0]


def smallest_pixels(figure: Figure) -> float:
    """The size of the smallest text in pixels of the page."""
    return min(float(text.get_fontsize()) / 0.75 for text, _ in seen(figure))


def width_pixels(figure: Figure) -> float:
    """The width of the figure on the page, with all that reaches out of its axes."""
    with style.drawing():
        for text in figure.texts:
            text.set_visible(text.get_gid() != "title")
        width = figure.get_tightbbox().padded(0.04).width
        for text in figure.texts:
            text.set_visible(True)
    return float(96 * width)


def overlaps(figure: Figure, slack: float = 1.0) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes lie on each other by more than `slack` pixels; slanted texts are left out."""
    upright = [(text, box) for text, box in seen(figure) if text.get_rotation() % 90 == 0]
    dots = slack * figure.dpi / 96
    return [
        (one.get_text(), other.get_text())
        for (one, a), (other, b) in itertools.combinations(upright, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > dots and min(a.y1, b.y1) - max(a.y0, b.y0) > dots
    ]
