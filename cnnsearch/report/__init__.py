"""The report of a sweep, or of several side by side: report.html, report.md and plots/, made from tables alone.

`findings` says what was found, `advice` what to try next, `figures` and `rows` show it, `page` puts all in order, and
`html` and `markdown` write it down; `beside` has a second process draw some of the figures; `claims` decides how sure
a sentence is, and `freshness` knows whether a report need be made again. `comparison` sets several sweeps against each
other. All facts come from `cnnsearch.evidence`.

What draws and computes is imported where a report is made: a command that finds its report up to date needs none of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cnnsearch.errors import RequestError, RunError
from cnnsearch.report import freshness
from cnnsearch.results.tables import Tables
from cnnsearch.storage.durable import write_whole

if TYPE_CHECKING:
    from cnnsearch.evidence.evidence import Evidence
    from cnnsearch.report.beside import Beside
    from cnnsearch.report.comparison import ComparisonPage
    from cnnsearch.report.page import Page
    from cnnsearch.report.paper import Formats

__all__ = ["Refreshed", "compare", "import_all", "refresh", "write", "write_comparison", "write_page"]


class Refreshed(NamedTuple):
    """An up-to-date report."""

    tables: Tables
    """The tables, with the pictures that the report shows."""
    path: Path
    """Path of report.html."""
    summary: list[tuple[str, str]]
    """The answer in a few labelled lines, for a terminal."""
    made_of: Evidence | None = None
    """What the report was made from; None where it was up to date."""

    @property
    def evidence(self) -> Evidence:
        """What the report shows."""
        from cnnsearch.evidence.evidence import Evidence

        return self.made_of or Evidence(self.tables)


def refresh(
    tables: Tables,
    pictures_of: Callable[[list[str]], dict[str, Any]],
    training_of: Callable[[list[str]], dict[str, Any]] = lambda asked: {},
    beside: Beside | None = None,
) -> Refreshed:
    """Bring the report in the tables' folder up to date: make it again only where it would differ.

    Args:
        tables: in which at least one trial has ended.
        pictures_of: called where the report is made again, with the names of the images whose pictures it shows;
            returns what `Tables.pictures` holds.
        training_of: called before, with the ids of the best trials; returns what `Tables.training` holds, or nothing
            where that stays as it is.
        beside: draws some of the figures.

    Raises RunError where the folder cannot be written.
    """
    noted = freshness.noted(tables.folder, tables)
    if noted is not None:
        return Refreshed(tables, tables.folder / "report.html", noted)
    from cnnsearch.evidence.doubts import doubted_wanted, judges
    from cnnsearch.evidence.evidence import Evidence
    from cnnsearch.evidence.mistakes import examples_wanted
    from cnnsearch.report.findings import summary
    from cnnsearch.report.labels import pairs_wanted

    evidence = Evidence(tables)
    evidence.show(training=training_of(judges(evidence)) or tables.training)
    wanted = [*examples_wanted(evidence), *doubted_wanted(evidence), *pairs_wanted(tables.data)]
    evidence.show(pictures=pictures_of(wanted))
    return Refreshed(evidence.tables, _make(evidence, tables.folder, beside=beside), summary(evidence), evidence)


def import_all() -> None:
    """Import what makes a report, which takes seconds: in a thread, while this process has little else to do."""
    for name in (
        "evidence.doubts",
        "evidence.mistakes",
        "report.page",
        "report.html",
        "report.markdown",
        "report.paper",
    ):
        import_module(f"cnnsearch.{name}")


def write(source: Tables | Evidence, out: Path, also: Formats | None = None, beside: Beside | None = None) -> Path:
    """Write report.html, report.md and plots/*.png into `out`, and what `also` asks for; returns the first's path.

    `beside` draws some of the figures.

    Every file appears whole or not at all. Pictures of an earlier report in `out` are removed, other files are not. The
    same tables give the same bytes. Raises RunError where `out` cannot be written.
    """
    from cnnsearch.evidence.evidence import as_evidence

    return _make(as_evidence(source), out, also, beside)


def _make(evidence: Evidence, out: Path, also: Formats | None = None, beside: Beside | None = None) -> Path:
    from cnnsearch.report.findings import summary
    from cnnsearch.report.page import assemble
    from cnnsearch.report.pictures import draw_all

    draw = functools.partial(beside.draw, evidence.tables) if beside else draw_all
    return write_page(out, assemble(evidence, draw), freshness.made_from(evidence.tables), summary(evidence), also)


def write_comparison(tables: Sequence[Tables], out: Path) -> Path:
    """Write the comparison of several sweeps into `out`, as `write` does; returns the path of its report.html.

    Raises RequestError where a folder is given twice, or where `out` holds the results of a sweep.
    """
    return write_page(out, compare(tables, out))


def compare(sources: Sequence[Tables | Evidence], out: Path) -> ComparisonPage:
    """Set several sweeps against each other, for a page in `out`. Raises as `write_comparison` does."""
    from cnnsearch.report import comparison

    comparison.refuse_out(out)
    return comparison.assemble(sources, out)


def write_page(
    out: Path,
    page: Page | ComparisonPage,
    made_from: str = "",
    answer: freshness.Lines = (),
    also: Formats | None = None,
) -> Path:
    """Write a page and its pictures into `out`, and what `also` asks for; returns the path of report.html.

    Raises RunError.
    """
    from cnnsearch.report import html, markdown, paper
    from cnnsearch.report.page import Page
    from cnnsearch.report.pictures import warn_undrawn

    plots = out / "plots"
    if plots.is_symlink():
        raise RequestError(f"{plots} is a link, and nothing is written where it leads; put a folder in its place")
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{plots} cannot be written: {error.strerror or error}") from None
    pictures = {}
    for picture in page.pictures:
        try:
            pictures[f"{picture.name}.png"] = picture.png
        except Exception as error:
            warn_undrawn(f"plots/{picture.name}.png", error)
    earlier = freshness.own_pictures(out)
    for name, png in pictures.items():
        write_whole(plots / name, png)
    others = {}
    if isinstance(page, Page) and page.labels.csv is not None:
        others["doubted.csv"] = page.labels.csv
    for name, content in others.items():
        write_whole(out / name, content)
    write_whole(out / "report.md", markdown.render(page).encode())
    write_whole(out / "report.html", html.render(page).encode())
    for old in earlier:
        if old.name not in pictures:
            old.unlink(missing_ok=True)
    freshness.note(out, pictures.keys(), made_from, answer, others.keys())
    paper.write(page, out, also or paper.NO_FORMATS)
    return out / "report.html"
