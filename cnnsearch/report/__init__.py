"""The report of a sweep, or of several side by side: report.html, report.md and plots/, made from tables alone.

`findings` says what was found, `advice` what to try next, `figures` and `rows` show it, `page` puts all in order, and
`html` and `markdown` write it down; `freshness` knows whether it need be. `comparison` and `contrast` set several
sweeps against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsearch.errors import RunError
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report import comparison, freshness, html, markdown
from cnnsearch.report.figures import Picture
from cnnsearch.report.findings import summary
from cnnsearch.report.page import assemble, most_sure_and_wrong
from cnnsearch.storage.durable import write_whole

if TYPE_CHECKING:
    from cnnsearch.results.tables import Tables

__all__ = ["current", "examples_wanted", "summary_lines", "write", "write_comparison"]


def write(tables: Tables, out: Path) -> Path:
    """Write report.html, report.md and plots/*.png into `out`; returns the path of report.html.

    Every file appears whole or not at all. Pictures an earlier report left in plots/ are removed. The same tables
    give the same bytes. Raises RunError where `out` cannot be written.
    """
    evidence = Evidence(tables)
    page, made_from = assemble(evidence), freshness.made_from(tables)
    path = _write(out, page.pictures(), markdown.render(page), html.render(page))
    freshness.note(out, made_from, summary(evidence))
    return path


def current(tables: Tables, out: Path) -> Path | None:
    """The report.html that `write` would give, where it is there already: made by this version from the same."""
    return out / "report.html" if freshness.noted(out, tables) is not None else None


def write_comparison(tables: Sequence[Tables], out: Path) -> Path:
    """Write the comparison of several sweeps into `out`, as `write` does; returns the path of its report.html.

    Raises RequestError where a folder is given twice, or where `out` holds the results of a sweep.
    """
    comparison.refuse_out(out)
    page = comparison.assemble(tables, out)
    return _write(out, page.pictures, markdown.render_comparison(page), html.render_comparison(page))


def _write(out: Path, drawn: Iterable[Picture], text: str, page: str) -> Path:
    plots = out / "plots"
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{plots} cannot be written: {error.strerror or error}") from None
    pictures = {f"{picture.name}.png": picture.png for picture in drawn}
    for name, png in pictures.items():
        write_whole(plots / name, png)
    for old in plots.glob("*.png"):
        if old.name not in pictures:
            old.unlink(missing_ok=True)
    write_whole(out / "report.md", text.encode())
    write_whole(out / "report.html", page.encode())
    return out / "report.html"


def summary_lines(tables: Tables) -> list[tuple[str, str]]:
    """The answer in a few labelled lines, for a terminal."""
    noted = freshness.noted(tables.folder, tables)
    return summary(Evidence(tables)) if noted is None else noted


def examples_wanted(tables: Tables, limit: int = 24) -> list[str]:
    """Names of the test examples the report shows pictures of: the best setting's wrong answers, surest first."""
    best = Evidence(tables).best
    if best is None:
        return []
    answers = tables.predictions[tables.predictions["trial_id"] == best.trial_ids[0]]
    return [wrong.example for wrong in most_sure_and_wrong(Evidence(replace(tables, predictions=answers)), limit)]
