"""How Sphinx makes the site from the pages in this folder: `make docs`.

The pages are Markdown that also reads well on a code host, with links from file to file. Four things are done for
the site: links to files outside this folder lead to the page here that shows them, links whose text is the name of a
page get its title, a picture that has a dark twin (`report.png` and `report-dark.png`) is shown in the colours of the
reader, and examples in docstrings become code.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import cnnsearch

DOCS = Path(__file__).parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "results/README.md": "results.md",
}
"""Files outside this folder, and the pages that show them."""

project = "cnnsearch"
version = release = cnnsearch.__version__
project_copyright = "The cnnsearch developers, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
smartquotes = False  # else -- becomes a dash, also in the names of options
exclude_patterns = ["evidence"]
nb_execution_mode = "off"  # a test runs the notebook
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]
highlight_language = "text"  # of indented blocks, which are commands and what they print
default_role = "code"  # of docstrings
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
autodoc_default_options = {"exclude-members": "__init__, __new__"}  # nobody makes these objects by hand
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures: few of them have a place here

html_theme = "furo"
html_title = "cnnsearch"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#005a8c", "color-brand-content": "#0067a0"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
}


def with_links_for(text: str, folder: Path) -> str:
    """Markdown of a file in `folder` with its links to other files as a page in this folder has them."""

    def moved(match: re.Match[str]) -> str:
        said, path, anchor = match[1], match[2], match[3] or ""
        target = os.path.relpath(folder / path, DOCS.parent)
        page = PAGES.get(target, os.path.relpath(DOCS.parent / target, DOCS))
        return f"[{'' if said.endswith('.md') else said}]({page}{anchor})"

    return re.sub(r"\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)", moved, text)


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Rewrite the links of a page to what has a page of its own."""
    if Path(app.env.doc2path(name)).suffix == ".md":
        source[0] = with_links_for(source[0], DOCS)


def read_included(app: Sphinx, path: Path, name: str, content: list[str]) -> None:
    """Rewrite the links of a file that a page includes, which lies elsewhere."""
    content[0] = with_links_for(content[0], (DOCS.parent / os.path.relpath(app.srcdir / path, DOCS.parent)).parent)


def add_dark_pictures(app: Sphinx, page: nodes.document) -> None:
    """Add to every picture its dark twin, where there is one; the theme shows one of them."""
    for image in list(page.findall(nodes.image)):
        light = Path(image["uri"])
        dark = light.with_name(f"{light.stem}-dark{light.suffix}")
        if (DOCS / dark).is_file():
            twin = image.deepcopy()
            twin.update_basic_atts({"classes": ["only-dark"]})
            twin["uri"], twin["candidates"] = str(dark), {"*": str(dark)}
            image["classes"].append("only-light")
            image.parent.insert(image.parent.index(image) + 1, twin)
            app.env.images.add_file(app.env.docname, str(dark))


def mark_examples(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Have the example of a docstring shown as code."""
    for at in [at for at, line in enumerate(lines) if line.strip() == "Example:"][::-1]:
        lines[at : at + 1] = [".. code-block:: python", ""]


def setup(app: Sphinx) -> None:
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("doctree-read", add_dark_pictures)
    app.connect("autodoc-process-docstring", mark_examples, priority=100)  # before napoleon reads it
