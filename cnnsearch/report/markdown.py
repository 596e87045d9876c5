"""The page as Markdown, with its figures in plots/."""

from __future__ import annotations

import re

from markupsafe import Markup

from cnnsearch.report.comparison import ComparisonPage
from cnnsearch.report.html import environment
from cnnsearch.report.page import Page
from cnnsearch.words import printable

_SPECIAL = re.compile(r"([\\`*_\[\]|<>#$~])")
_STARTS = re.compile(r"^(\d*)([-+.)])(?=\s)")


def render(page: Page | ComparisonPage) -> str:
    """The page as Markdown for readers and renderers alike."""
    return filled("comparison.md.j2" if isinstance(page, ComparisonPage) else "report.md.j2", page=page)


def filled(name: str, **values: object) -> str:
    """A page by the name of its template."""
    templates = environment()
    templates.filters["md"] = plain
    templates.filters["mdcode"] = code
    text = templates.get_template(name).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(text: str) -> Markup:
    """Text in one line, with all markup of Markdown and HTML escaped."""
    flat = printable(" ".join(str(text).split()), on_page=True).replace("&", "&amp;")
    flat = _SPECIAL.sub(r"\\\1", flat).replace("\\<", "&lt;").replace("\\>", "&gt;")
    return Markup(_STARTS.sub(r"\1\\\2", flat))


def code(text: str, indent: int = 0) -> Markup:
    """A fenced block; its fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = [fence, *printable(text, on_page=True).rstrip("\n").split("\n"), fence]
    return Markup("\n".join(" " * indent + line for line in lines))
