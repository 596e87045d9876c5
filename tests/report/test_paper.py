"""Figures and tables for a paper: what is in the files, and that docs/report.md is right."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cnnsearch import report, run
from cnnsearch.errors import RequestError
from cnnsearch.report.paper import FIGURES, LONG, TABLES, Formats, as_csv, as_latex, escaped
from cnnsearch.report.rows import Cell, Column, Row, Table
from cnnsearch.spec.load import load_sweep
from tests import pages
from tests.asking import ask
from tests.conftest import SMALL
from tests.report import factory

ROOT = Path(__file__).parents[2]
PAGE = pages.text("report.md")
COMMANDS = pages.take("report.md", "report")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made sweep with all that can be asked for."""
    folder = tmp_path_factory.mktemp("paper")
    report.write(factory.one_trial(), folder, Formats(tuple(FIGURES), tuple(TABLES)))
    return folder


def test_every_figure_is_there_in_both_formats(out: Path) -> None:
    names = {file.stem for file in (out / "plots").iterdir()}
    assert len(names) >= 4
    assert {file.name for file in (out / "figures").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in FIGURES
    }


def test_fonts_are_inside_of_pdfs_and_their_text_is_text(out: Path) -> None:
    for file in (out / "figures").glob("*.pdf"):
        content = file.read_bytes()
        assert content.startswith(b"%PDF-")
        fonts = re.findall(rb"/BaseFont /(\S+)", content)
        assert fonts
        assert all(b"DejaVuSans" in font for font in fonts)
        assert b"/FontFile2" in content  # TrueType, inside
        assert b"/Type3" not in content
        assert b"/ToUnicode" in content  # what is copied are characters


def test_text_of_svgs_is_text(out: Path) -> None:
    for file in (out / "figures").glob("*.svg"):
        texts = ["".join(text.itertext()) for text in ElementTree.parse(file).iter(f"{SVG}text")]
        assert len(texts) > 2
        assert any(len(text.strip()) > 3 for text in texts)
        assert "var(--" not in file.read_text(encoding="utf-8")  # colours of their own


@pytest.mark.after
def test_the_same_tables_give_the_same_files(out: Path, tmp_path: Path) -> None:
    report.write(factory.one_trial(), tmp_path, Formats(("pdf", "svg"), ("tex",)))
    for file in (out / "figures").iterdir():
        assert file.read_bytes() == (tmp_path / "figures" / file.name).read_bytes()
    assert {file.suffix for file in (tmp_path / "tables").iterdir()} == {".tex"}


def test_tables_have_the_same_cells(out: Path) -> None:
    for file in (out / "tables").glob("*.csv"):
        rows = list(csv.reader(file.open(encoding="utf-8", newline="")))
        lines = [line for line in file.with_suffix(".tex").read_text().splitlines() if line.endswith(r"\\")]
        assert len(rows) == len(lines) >= 2
        assert all(len(re.split(r"(?<!\\)&", line)) == len(rows[0]) for line in lines)
    assert {file.name for file in (out / "tables").iterdir()} >= {
        "trials.csv",
        "trials.tex",
        "recall.csv",
        "recall.tex",
    }


TABLE = Table(
    (Column("class_name"), Column("share, %", numeric=True)),
    (
        Row((Cell("a & b"), Cell("−0.1 (0.2–0.3)", -0.1)), is_best=True),
        Row((Cell(r"[x] \input{/etc/passwd} $y$ #1 {z} ~^"), Cell("3×3 → 4", 3.0))),
    ),
)


def test_latex() -> None:
    assert as_latex(TABLE).splitlines() == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{@{}lr@{}}",
        r"\toprule",
        r"class\_name & share, \% \\",
        r"\midrule",
        r"\textbf{a \& b} & \textbf{$-$0.1 (0.2--0.3)} \\",
        r"{[x] \textbackslash{}input\{/etc/passwd\} \$y\$ \#1 \{z\} \textasciitilde{}\textasciicircum{}} "
        r"& 3$\times$3 $\rightarrow$ 4 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert escaped("two\nlines\u00a0here\x1b") == r"two lines here\textbackslash{}x1b"


def test_a_long_table_may_break() -> None:
    text = as_latex(Table(TABLE.columns, TABLE.rows * LONG))
    assert text.startswith("% \\usepackage{booktabs} and longtable\n\\begin{longtable}{@{}lr@{}}\n")
    assert "\\midrule\n\\endhead\n" in text


def test_csv() -> None:
    assert as_csv(TABLE).splitlines()[:2] == ['class_name,"share, %"', "a & b,−0.1 (0.2–0.3)"]


def test_several_sweeps(tmp_path: Path) -> None:
    other = replace(factory.lr_only(), folder=Path("results/other"))
    page = report.compare([factory.one_trial(), other], tmp_path)
    report.write_page(tmp_path, page, also=Formats(("pdf",), ("csv",)))
    assert {file.name for file in (tmp_path / "tables").iterdir()} == {"sweeps.csv"}
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {picture.name for picture in page.pictures}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--figures", "png"], 'error: --figures png: "png" is no format of it; allowed are pdf, svg'),
        (["--tables", "tex,xlsx"], 'error: --tables tex,xlsx: "xlsx" is no format of it; allowed are tex, csv'),
        (["--figures", ""], "error: --figures (empty): a format is missing; allowed are pdf, svg"),
    ],
)
def test_wrong_formats(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = ask(tmp_path / "none", *arguments, command="report")
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", said)


def test_results_at_a_uri_need_a_folder() -> None:
    done = ask("s3://bucket/x", "--figures", "pdf", command="report")
    assert done.returncode == 2
    assert "--out: say in which folder figures and tables go" in done.stderr


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="figures is a link"):
        report.write(factory.one_trial(), tmp_path / "out", Formats(("pdf",)))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    run(load_sweep("part1", values=[*SMALL, "stages=[{name: grid, space: {model: plain}}]"]), root, serial=True)
    return root / "part1"


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_on_the_page(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    shutil.copytree(results, tmp_path / "results" / "part1")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(arguments)
    done = ask(*words, command="report")
    assert done.returncode == 0, done.stderr
    folder = Path("thesis" if "thesis" in words else "results/part1")
    asked = [name for name in ("figures", "tables") if f"--{name}" in words]
    assert done.stdout.split() == [str(folder / name) for name in ("report.html", *asked)]
    for name in asked:
        kinds = set(words[words.index(f"--{name}") + 1].split(","))
        assert {file.suffix[1:] for file in (folder / name).iterdir()} == kinds


def test_formats_on_the_page() -> None:
    assert len(COMMANDS) == 3
    table = PAGE.split("| format |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [*FIGURES, *TABLES]
    assert f"from {LONG} rows on" in PAGE


def test_citations_name_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == version
    assert cited["authors"] == [{"name": "The cnnsearch developers"}]
    assert f"version = {{{version}}}" in PAGE
    assert f"title   = {{{cited['title']}}}" in PAGE
