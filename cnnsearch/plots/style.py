"""Colours by meaning, layout in inches, and figures as PNG or as SVG that follows the page's theme.

Figures are drawn in the colours of `THEME`. A PNG keeps them; in an SVG each is replaced by a CSS variable of the same
name, so that one drawing serves light and dark. That works because every colour of the theme is a different hex
code and nothing is drawn in any other.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

# Name -> (light, dark). The `m` colours are Okabe & Ito's (2008), lightened for dark backgrounds.
THEMES = {
    "paper": ("#ffffff", "#15171b"),
    "ink": ("#1c1f23", "#e6e8eb"),
    "muted": ("#5f6873", "#a2abb6"),
    "faint": ("#b4bbc4", "#5b646f"),
    "rule": ("#e2e5ea", "#2b3037"),
    "accent": ("#00785b", "#46c99f"),
    "heat": ("#004b87", "#7db8e8"),
    "on-heat": ("#fffffe", "#0c0e11"),
    "m-blue": ("#0072b2", "#4ea8e0"),
    "m-vermillion": ("#d55e00", "#f28a47"),
    "m-green": ("#009e73", "#35c79b"),
    "m-purple": ("#cc79a7", "#e29fc4"),
    "m-orange": ("#e69f00", "#f0b637"),
    "m-sky": ("#56b4e9", "#8fd0f5"),
    "m-yellow": ("#c9b800", "#f0e442"),
}
THEME = {name: light for name, (light, _) in THEMES.items()}

# A model keeps its colour in every report, so the known ones are fixed; others take what is left, in order.
_FIXED = {"plain": "m-vermillion", "residual": "m-blue", "resnet18": "m-green"}
_MODEL_COLOURS = [name for name in THEMES if name.startswith("m-")]

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "text.color": THEME["ink"],
    "axes.edgecolor": THEME["faint"],
    "axes.labelcolor": THEME["muted"],
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": THEME["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": THEME["faint"],
    "ytick.color": THEME["faint"],
    "xtick.labelcolor": THEME["muted"],
    "ytick.labelcolor": THEME["muted"],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "cnnsearch",
    "path.simplify_threshold": 0.2,
}

SMALL = 8
LEAST = 6.8
"""Size in points of the smallest text: 9 pixels of the page."""
PAGE = 9.75
"""Inches that a figure may take across on a page of 1,280 pixels."""
PHONE = 3.6
"""The same on a screen of 390 pixels, for which some figures are drawn again."""
_LEAST_SCALE = 0.76
"""A page may shrink a figure to this share of its width before it is scrolled instead."""
MOST_SIDE = 10_000
"""Most pixels of a PNG's longer side."""
MOST_PIXELS = 20_000_000
"""Most pixels of a PNG: drawing them takes a few hundred megabytes, whatever the data."""
VALIDATION_DASHES = (0, (3.2, 1.8))


def colour_of(model: str, models: Sequence[str]) -> str:
    """The colour of a model among `models`; after seven models the colours repeat."""
    if model in _FIXED:
        return THEME[_FIXED[model]]
    taken = {_FIXED[name] for name in models if name in _FIXED}
    free = [name for name in _MODEL_COLOURS if name not in taken]
    others = [name for name in models if name not in _FIXED]
    return THEME[free[others.index(model) % len(free)]] if model in others else THEME["muted"]


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the settings for drawing and saving figures during the block; restore the earlier ones after it."""
    with mpl.rc_context(_RC), warnings.catch_warnings():
        # Class names may use scripts the PNG font lacks; the SVG hands their text to the browser, which has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


class _ShownFigure(Figure):
    """A figure that a notebook shows as a cell's result: Jupyter's own formatter knows those of pyplot only."""

    def _repr_png_(self) -> bytes:
        return to_png(self, dpi=100)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, which pyplot does not know."""
    figure = _ShownFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the figure's top left corner."""
    whole_width, whole_height = figure.get_size_inches()
    box = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(box)


def put_text(figure: Figure, x: float, y: float, text: str, **options: Any) -> Text:
    """Text placed in inches from the figure's top left corner."""
    width, height = figure.get_size_inches()
    return figure.text(x / width, 1 - y / height, text, **options)


def put_title(figure: Figure, title: str) -> None:
    """Write what the figure shows above everything else. `to_svg` leaves it out: the page prints it as text."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(title, max(24, int(width * 12.2))) or [""]
    text = figure.text(0.02 / width, 1 + 0.12 / height, "\n".join(lines), ha="left", va="bottom")
    text.set(fontsize=11, fontweight="bold", gid="title", color=THEME["ink"])


def legend(
    figure: Figure, handles: Sequence[Artist], left: float, top: float, columns: int | None = None, **options: Any
) -> None:
    """Add a legend, placed in inches from the figure's top left corner; in one row unless `columns` is given."""
    width, height = figure.get_size_inches()
    usual: dict[str, Any] = {
        "loc": "upper left", "fontsize": 8.5, "handletextpad": 0.2, "columnspacing": 1.2, "borderaxespad": 0,
        "labelcolor": THEME["muted"],
    }  # fmt: skip
    place = (left / width, 1 - top / height)
    figure.legend(handles=handles, bbox_to_anchor=place, ncols=columns or len(handles), **usual | options)


def dot(marker: str, edge: str, face: str, label: str) -> Line2D:
    """Return a dot to put into a legend."""
    return Line2D([], [], marker=marker, color=edge, markerfacecolor=face, linestyle="none", markersize=5, label=label)


def title_of(figure: Figure) -> str:
    """The title given to `put_title`, in one line."""
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts if text.get_gid() == "title")


def shorten(name: str, limit: int) -> str:
    """A name cut to `limit` characters, in one line."""
    flat = " ".join(name.split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def slant_labels(axes: Axes, names: Sequence[str], room: float) -> None:
    """Slant the names of ticks along x if one is longer than the `room` in inches between two of them."""
    if max((len(name) for name in names), default=0) * 0.078 > room:
        axes.tick_params(axis="x", labelrotation=30)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def percent_axis(axes: Axes, which: str) -> None:
    """Label the ticks of x or y, whose values are fractions, in percent: whole ones where the axis is long enough."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    locator = axis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(steps=[1, 2, 5, 10])  # not 2.5: a tick at 62.5 % would be called 62 %
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 2):g} %" if abs(value) < 10 else "")


def to_png(figure: Figure, dpi: float = 150) -> bytes:
    """The figure with its title, on white; a very large figure with fewer dots per inch, see `MOST_PIXELS`."""
    # Packed tightly it would be a seventh smaller, and take a fifth longer.
    options = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 1}}
    return _saved(figure, 0.12, _EXTENTS.pop(figure, None), format="png", dpi=dpi, **options)


def to_pdf(figure: Figure) -> bytes:
    """The figure with its title as a PDF with its fonts inside, whose text can be selected; always the same bytes."""
    return _saved(figure, 0.12, format="pdf", metadata={"CreationDate": None})


def to_svg_file(figure: Figure) -> bytes:
    """The figure with its title as an SVG file of its own, in the colours of the light theme; its text is text."""
    return _saved(figure, 0.12, format="svg", metadata={"Date": None})


def to_svg(figure: Figure, prefix: str) -> str:
    """The figure without its title as an `<svg>` element for inlining in HTML.

    Colours are CSS variables, text is text in the page's font, ids start with `prefix`, nothing is loaded from
    elsewhere, and the same figure gives the same bytes.
    """
    titles = [text for text in figure.texts if text.get_gid() == "title"]
    for text in titles:
        text.set_visible(False)
    _EXTENTS[figure] = extent = _extent(figure)
    svg = _saved(figure, 0.04, extent, format="svg", transparent=True).decode()
    for text in titles:
        text.set_visible(True)
    return _inlined(svg, prefix)


_EXTENTS: WeakKeyDictionary[Figure, Bbox] = WeakKeyDictionary()
"""Figure -> what is drawn of it without its title, in inches: for the PNG of a figure that has just become an SVG.
Finding it takes as long as drawing it."""


def _extent(figure: Figure) -> Bbox:
    """The box around all that is drawn, in inches."""
    with drawing():
        return figure.get_tightbbox()


def _saved(figure: Figure, padding: float, extent: Bbox | None = None, **options: Any) -> bytes:
    """The figure in a file format, with `padding` inches around what is drawn.

    The box is computed here, because `savefig` with a tight one draws everything a second time to find it. `extent` is
    the box around all but the titles, where it is known.
    """
    buffer = io.BytesIO()
    with drawing():
        if extent is None:
            extent = _extent(figure)
        elif titles := [text for text in figure.texts if text.get_gid() == "title" and text.get_visible()]:
            # The renderer at hand may be of another resolution.
            renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
            around = Bbox.union([text.get_window_extent(renderer) for text in titles])
            extent = Bbox.union([extent, around.transformed(figure.dpi_scale_trans.inverted())])
        box = extent.padded(padding)
        if "dpi" in options:
            longest = MOST_SIDE / max(box.width, box.height)
            options["dpi"] = min(options["dpi"], longest, (MOST_PIXELS / (box.width * box.height)) ** 0.5)
        figure.savefig(buffer, bbox_inches=box, **options)
    return buffer.getvalue()


_HEX = {light: name for name, light in THEME.items()}


def _inlined(svg: str, prefix: str) -> str:
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    width, height = float(size[1]), float(size[2])
    # What comes before the drawing (name spaces, a date, the tool's style) has no place in a page.
    body = svg[svg.index("</defs>", svg.index("<style")) + len("</defs>") : svg.rindex("</svg>")]
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', body))

    def tag(match: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", match[0])
        text = re.sub(r'(url\(#|xlink:href="#)', lambda m: m[1].replace("xlink:", "") + prefix + "-", text)
        text = re.sub(r"font-family: [^;\"]+;? ?", "", text)
        text = re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var(--{_HEX[m[0]]})" if m[0] in _HEX else m[0], text)
        text = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", text)
        return re.sub(r"\d+\.\d{2,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text)

    body = re.sub(r"<[^>]*>", tag, body)  # tags only: the contents of texts stay as they are
    body = re.sub(r"\s*\n\s*", "\n", body)
    # matplotlib counts in points of 1/72 inch, CSS in pixels of 1/96.
    box = f'viewBox="0 0 {width:.1f} {height:.1f}" width="{width / 0.75:.0f}" height="{height / 0.75:.0f}"'
    return f'<svg {box} style="min-width:{_LEAST_SCALE * width / 0.75:.0f}px">{body}</svg>'
