"""A figure of the report before and after it is drawn: once, for the page and for `plots/`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup
from matplotlib.figure import Figure

from cnnsearch import plots
from cnnsearch.plots import style
from cnnsearch.words import capitalised, printable

_LOG = logging.getLogger(__name__)


class Drawing:
    """A figure that is still to be drawn. Each is one of its own, also where another looks the same."""

    def __init__(
        self,
        draw: Callable[[], Figure | None],
        name: str,
        caption: str,
        alt: str,
        narrow: Callable[[], Figure | None] | None = None,
    ) -> None:
        """See `Picture`.

        Args:
            draw: draws it; None where there is nothing to draw.
            name: may contain anything, such as the name of a stage.
            caption: how to read it.
            alt: a description.
            narrow: draws it for a phone; None where the figure is scrolled there.
        """
        self.draw, self.narrow = draw, narrow
        self.name = re.sub(r"[^a-z0-9_-]+", "-", name.lower())
        self.caption, self.alt = caption, alt


@dataclass(frozen=True)
class Picture:
    """One figure of the report."""

    name: str
    """Name of its file in plots/, and its id on the page."""
    title: str
    """One line that says what it shows."""
    caption: str
    """How to read it."""
    alt: str
    """A description for those who cannot see it."""
    svg: Markup
    narrow_svg: Markup
    """The same for a phone; empty where the figure is scrolled there."""
    draw: Callable[[], Figure | None]
    """Draws it again, if another process has drawn it."""

    @cached_property
    def figure(self) -> Figure:
        """The figure itself, for other formats."""
        figure = self.draw()
        assert figure is not None
        return figure

    @cached_property
    def png(self) -> bytes:
        """Content of the file in plots/. Drawn on first use, which takes as long as all the rest; a page needs none."""
        return plots.to_png(self.figure)

    def keep(self, figure: Figure | None = None, png: bytes | None = None) -> Picture:
        """Keep what has been drawn already, so that it is not drawn again."""
        known = {"figure": figure, "png": png}
        self.__dict__.update({name: value for name, value in known.items() if value is not None})
        return self


Draw = Callable[[Sequence[Drawing]], Mapping[Drawing, Picture]]
"""Draws figures, each as `drawn` does; those that show nothing, or cannot be drawn, are not among the pictures."""


def drawn(drawing: Drawing) -> Picture | None:
    """Draw a figure; None if there is nothing to draw.

    A figure that cannot be drawn, for lack of memory perhaps, must not cost the report: it is left out, with a warning.
    """
    name = drawing.name
    try:
        figure = drawing.draw()
        if figure is None:
            return None
        svg = Markup(printable(plots.to_svg(figure, name), on_page=True))
        small = drawing.narrow() if drawing.narrow else None
        narrow_svg = Markup(printable(plots.to_svg(small, f"{name}-narrow"), on_page=True) if small else "")
    except Exception as error:
        warn_undrawn(name, error)
        return None
    title = capitalised(style.title_of(figure))
    return Picture(name, title, drawing.caption, drawing.alt, svg, narrow_svg, drawing.draw).keep(figure)


def draw_all(drawings: Sequence[Drawing]) -> dict[Drawing, Picture]:
    """Draw figures, one after another."""
    return {drawing: picture for drawing in drawings if (picture := drawn(drawing)) is not None}


def warn_undrawn(name: str, error: Exception) -> None:
    """Say that a figure is missing, and why."""
    _LOG.warning("the report lacks the figure %s, which cannot be drawn: %s", name, str(error) or type(error).__name__)


def present(pictures: Sequence[Picture | None]) -> list[Picture]:
    """Return the pictures that are not None."""
    return [picture for picture in pictures if picture is not None]
