"""A report's figures and tables as files for a paper or thesis: PDF and SVG, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cnnsearch.errors import RequestError, RunError
from cnnsearch.plots.style import to_pdf, to_svg_file
from cnnsearch.report.comparison import ComparisonPage
from cnnsearch.report.page import Page
from cnnsearch.report.pictures import Picture, warn_undrawn
from cnnsearch.report.rows import Cell, Row, Table
from cnnsearch.storage.durable import write_whole
from cnnsearch.words import printable

FIGURES: dict[str, Callable[[Picture], bytes]] = {
    "pdf": lambda picture: to_pdf(picture.figure),
    "svg": lambda picture: to_svg_file(picture.figure),
}
"""Format of figures -> what writes it."""
TABLES: dict[str, Callable[[Table], bytes]] = {
    "tex": lambda table: as_latex(table).encode(),
    "csv": lambda table: as_csv(table).encode(errors="backslashreplace"),
}
"""Format of tables -> what writes it."""
LONG = 40
"""Rows from which a LaTeX table may break over pages."""

_ESCAPED = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "’": "'",
    "−": "$-$", "×": r"$\times$", "→": r"$\rightarrow$", "≤": r"$\leq$", "≥": r"$\geq$", "–": "--", "…": r"\ldots{}",
}  # fmt: skip


class Formats(NamedTuple):
    """The formats that are asked for."""

    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def folders(self) -> list[str]:
        """Names of the folders that they are written into."""
        return [name for name, formats in self._asdict().items() if formats]


NO_FORMATS = Formats()


def asked_for(figures: str | None, tables: str | None) -> Formats:
    """Parse the options `--figures` and `--tables`. Raises RequestError where a format is none of theirs."""
    return Formats(_parsed("--figures", figures, list(FIGURES)), _parsed("--tables", tables, list(TABLES)))


def _parsed(option: str, given: str | None, known: Sequence[str]) -> tuple[str, ...]:
    names = [] if given is None else [name.strip().lower() for name in given.split(",")]
    if odd := [name for name in names if name not in known]:
        named = f'"{printable(odd[0])}" is no format of it' if odd[0] else "a format is missing"
        raise RequestError(f"{option} {printable(given or '') or '(empty)'}: {named}; allowed are {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def write(page: Page | ComparisonPage, out: Path, asked: Formats) -> list[Path]:
    """Write the page's figures into `out`/figures and its tables into `out`/tables; returns the files.

    A figure that cannot be drawn is left out, with a warning. Raises RequestError or RunError where a folder cannot be
    written.
    """
    written, (figures, tables) = list[Path](), asked
    folder = _folder(out / "figures") if figures else out
    for picture in page.pictures if figures else []:
        for name in figures:
            file = folder / f"{picture.name}.{name}"
            try:
                content = FIGURES[name](picture)
            except Exception as error:
                warn_undrawn(f"figures/{file.name}", error)
                continue
            write_whole(file, content)
            written.append(file)
    folder = _folder(out / "tables") if tables else out
    for title, table in tables_of(page).items() if tables else []:
        for name in tables:
            file = folder / f"{re.sub(r'[^a-z0-9_-]+', '-', title.lower())}.{name}"
            write_whole(file, TABLES[name](table))
            written.append(file)
    return written


def _folder(folder: Path) -> Path:
    if folder.is_symlink():
        raise RequestError(f"{folder} is a link, and nothing is written where it leads; put a folder in its place")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}") from None
    return folder


def tables_of(page: Page | ComparisonPage) -> dict[str, Table]:
    """Name -> each table of a page that has rows."""
    if isinstance(page, ComparisonPage):
        found: dict[str, Table | None] = {"sweeps": page.table}
    else:
        found = {"trials": page.every_trial(), "metrics": page.metrics, "recall": page.by_class}
        found |= {f"continued-{stage.stage}": stage.table for stage in page.continued}
        found |= {f"pareto-{section.stage}": section.front for section in page.searches}
    return {name: table for name, table in found.items() if table is not None and table.rows}


def as_csv(table: Table) -> str:
    """A table as the report shows it; numbers without their words are in the Parquet tables."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.title for column in table.columns])
    writer.writerows([cell.text for cell in row.cells] for row in table.rows)
    return text.getvalue()


def as_latex(table: Table) -> str:
    """A table for LaTeX with the package booktabs; best rows are bold. A long one needs longtable, too."""
    is_long = len(table.rows) >= LONG
    kind = "longtable" if is_long else "tabular"
    heading = _line([escaped(column.title) for column in table.columns])
    return "\n".join(
        [
            rf"% \usepackage{{booktabs}}{' and longtable' if is_long else ''}",
            rf"\begin{{{kind}}}{{@{{}}{''.join('r' if column.numeric else 'l' for column in table.columns)}@{{}}}}",
            r"\toprule",
            heading,
            r"\midrule",
            *([r"\endhead"] if is_long else []),
            *(_line([_cell(cell, row) for cell in row.cells]) for row in table.rows),
            r"\bottomrule",
            rf"\end{{{kind}}}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Text in which nothing means something to LaTeX."""
    return "".join(_ESCAPED.get(char, char) for char in printable(" ".join(text.split())))


def _cell(cell: Cell, row: Row) -> str:
    return rf"\textbf{{{escaped(cell.text)}}}" if row.is_best else escaped(cell.text)


def _line(cells: Sequence[str]) -> str:
    # A bracket at the start of a row would be taken for an option of the \\ before it.
    return " & ".join(f"{{{cell}}}" if cell.startswith("[") else cell for cell in cells) + r" \\"
