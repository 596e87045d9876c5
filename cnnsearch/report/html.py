"""The page as one self-contained HTML file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cnnsearch.evidence.configurations import AXES
from cnnsearch.plots.style import THEMES
from cnnsearch.report.comparison import ComparisonPage
from cnnsearch.report.page import Page
from cnnsearch.spec.axis_words import words
from cnnsearch.words import printable

# The background of code and pictures, which only the page needs: (light, dark).
_WELL = ("#f4f5f7", "#1f2329")

_ANCHOR_NAMES = {
    "all-settings": "all settings",
    "metrics": "all metrics",
    "curves": "the curves",
    "errors": "the errors",
    "trials": "the trials",
}

_COMPARISON_ANCHOR_NAMES = {"best": "the best settings", "time": "accuracy against time", "table": "the table"}

_NAMED = sorted({words(axis).short.split()[-1] for axis in AXES} | {"epoch", "rate", "seed", "trial"})

# What must not break over two lines: "78.9 % (76.3–81.3)", "2.7 points (0.4 to 5.0)", "10 %", "6 s", "p < 0.001",
# "26 of 1,000", "17 to 24", "−2.0 to 2.2", and a name of one word with its value: "batch 16", "lr 0.0001", "epoch 3".
_NUMBERS = re.compile(
    r"−?\d[\d.,]* (?:%|points|(?:s|min|h|d)\b)(?: \([−\d][^()]*\))?|\bp (?:&lt;|=) [\d.e-]*\d"
    r"|(?<![\w.])−?\d[\d.,]* (?:of|to) −?\d[\d.,]*(?<![.,])"
    r"|\b(?:" + "|".join(_NAMED) + r") \d[\d.e-]*\b"
)


def environment(package: str = "cnnsearch.report") -> Environment:
    """Jinja that escapes everything not marked safe, shows characters that act, and refuses undefined names.

    `package` is the one whose folder `templates` is used.
    """
    templates = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["numbers"] = keep_numbers_whole
    templates.filters["command"] = keep_words_whole
    templates.filters["base64"] = only_base64
    return templates


def render(page: Page | ComparisonPage) -> str:
    """The page as HTML, with styles, script, figures and pictures inside."""
    return _render(page, "layout.html.j2", **_inside())


def filled(name: str, **values: object) -> str:
    """A page of another kind, by the name of its template, in the same layout."""
    return environment().get_template(name).render(layout="layout.html.j2", **_inside(), **values)


def _inside() -> dict[str, str]:
    """What a page has inside itself: styles, script, and the hash by which the script is allowed."""
    source = table_script()
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return {"style": Markup(style()), "script": Markup(source), "script_hash": f"sha256-{digest}"}


def content(page: Page | ComparisonPage) -> str:
    """The `main` element of `render`, for a page made elsewhere, which needs `style` and `table_script`."""
    return _render(page, "content.html.j2")


def _render(page: Page | ComparisonPage, layout: str, **parts: str) -> str:
    if isinstance(page, ComparisonPage):
        name, anchor_names = "comparison.html.j2", _COMPARISON_ANCHOR_NAMES
    else:
        name, anchor_names = "report.html.j2", _anchor_names(page)
    return environment().get_template(name).render(page=page, layout=layout, anchor_names=anchor_names, **parts)


def style() -> str:
    """The report's CSS."""
    return environment().get_template("report.css").render(light=_variables(0), dark=_variables(1))


def table_script() -> str:
    """The JavaScript that makes tables sortable. Its comments say how to add tables later."""
    templates = environment()
    source, _, _ = templates.loader.get_source(templates, "table.js") if templates.loader else ("", "", None)
    return source


def _anchor_names(page: Page) -> dict[str, str]:
    """Id of a section -> the text of a link to it."""
    heading = page.heatmaps_heading
    continued = {f"continued-{stage.stage}": "before and after" for stage in page.continued}
    searched = {f"search-{section.stage}": "how the search went" for section in page.searches}
    return {**_ANCHOR_NAMES, **continued, **searched, "heatmaps": heading[:1].lower() + heading[1:]}


def keep_numbers_whole(text: str) -> Markup:
    """Escaped text in which numbers stay on one line with their unit and interval."""
    return Markup(
        _NUMBERS.sub(lambda match: f'<span class="n">{match[0]}</span>', str(escape(printable(text, on_page=True))))
    )


def keep_words_whole(command: str) -> Markup:
    """Escaped text of a command that breaks over lines between its words, not after the hyphens of an option."""
    words = printable(command, on_page=True).split(" ")
    return Markup(" ").join(Markup("<span>{}</span>").format(word) if word else "" for word in words)


def _finalized(value: object) -> object:
    return printable(value, on_page=True) if isinstance(value, str) and not isinstance(value, Markup) else value


def only_base64(text: str) -> str:
    """Return the text if it is base64, else nothing, since it goes into a URL."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return ""
    return text


def _variables(theme: int) -> str:
    colours = {**{name: pair[theme] for name, pair in THEMES.items()}, "well": _WELL[theme]}
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
