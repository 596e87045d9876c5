"""The section on how a search went: when it is there, what it holds, and that it stays readable at 2,000 trials."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable

import pytest

from cnnsearch import plots, report
from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report.page import MOST_ROWS, assemble
from cnnsearch.report.pictures import draw_all
from cnnsearch.report.rows import trials
from cnnsearch.report.search import drawings, sections, summary
from cnnsearch.results.tables import Tables
from tests.report import factory, searched
from tests.report.test_report import PAGE, SVG, Page

VARIANTS: dict[str, Callable[[], Tables]] = {
    "small": lambda: searched.searched(20),
    "asha": lambda: searched.searched(60, "random", stop_early=searched.ASHA),
    "three": lambda: searched.searched(60, "nsga2", objectives=["val_accuracy", "seconds", "bytes"]),
}


@functools.cache
def evidence_of(name: str) -> Evidence:
    return Evidence(VARIANTS[name]())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Variant name -> (its page, its Markdown, names of its plots); each is built once."""
    known: dict[str, tuple[Page, str, set[str]]] = {}

    def build(name: str) -> tuple[Page, str, set[str]]:
        if name not in known:
            out = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(plots, "to_png", lambda figure: b"")
                page = Page(report.write(evidence_of(name).tables, out).read_text(encoding="utf-8"))
            text = (out / "report.md").read_text(encoding="utf-8")
            known[name] = page, text, {path.stem for path in (out / "plots").iterdir()}
        return known[name]

    return build


@pytest.mark.parametrize("name", VARIANTS)
class TestSection:
    def test_is_well_formed_and_every_link_has_its_target(self, built, name):
        page, _, _ = built(name)
        assert page.open == []
        assert page.names() <= PAGE | SVG
        ids = page.attributes("id")
        assert len(ids) == len(set(ids))
        assert {link[1:] for link in page.attributes("href")} <= set(ids)
        assert {"searches", "search-search"} <= set(ids)

    def test_pictures_are_on_the_page_beside_it_and_described(self, built, name):
        page, text, plots = built(name)
        names = {p for p in plots if p.startswith("search-")}
        assert f"search-search-{'pareto' if name == 'three' else 'history'}" in names
        for picture in names:
            assert f"fig-{picture}" in page.attributes("id")
            assert re.search(rf"!\[.{{20,}}\]\(plots/{picture}\.png\)", text)

    def test_ranges_have_no_heatmap(self, built, name):
        page, _, _ = built(name)
        assert "heatmaps" not in page.attributes("id")


def test_what_each_search_shows(built):
    small, asha, three = (built(name)[2] for name in VARIANTS)
    assert "search-search-importances" not in small
    assert "Importances and the map of the two axes that matter most are not shown: " in built("small")[0].words()
    assert {"search-search-rungs", "search-search-budgets", "search-search-importances"} <= asha
    assert "search-search-pareto" not in asha
    assert {"search-search-pareto", "search-search-contour", "search-search-slices"} <= three
    assert "The Pareto set, by the first objective" in built("three")[0].words()


def test_grids_have_no_such_section():
    assert sections(Evidence(factory.part1()), {}) == []
    assert sections(Evidence(factory.lr_only()), {}) == []


def test_a_grid_with_stopped_trials_shows_only_what_was_stopped():
    evidence = Evidence(factory.with_trouble())
    (search,) = evidence.searches
    pictures = [*draw_all(drawings(search)).values()]
    assert {picture.name for picture in pictures} <= {"search-grid-rungs", "search-grid-budgets"}
    (section,) = sections(evidence, {"grid": pictures})
    assert section.pictures == pictures
    assert section.why_no_importances == ""


def test_the_summary_counts_every_trial():
    (search,) = evidence_of("asha").searches
    counts = [int(number) for number in re.findall(r"(\d+) (?:trained|stopped|failed|diverged)", summary(search))]
    assert sum(counts) == 60
    assert "successive halving (ASHA)" in summary(search)


def test_the_front_is_in_the_table():
    (section,) = sections(evidence_of("three"), {"search": []})
    (search,) = evidence_of("three").searches
    assert section.front is not None
    assert [row.cells[0].sort for row in section.front.rows] == [one.number for one in search.front][:15]


def test_trials_have_their_numbers_and_epochs():
    evidence = evidence_of("asha")
    table = trials(evidence)
    titles = [column.title for column in table.columns]
    numbers = [row.cells[titles.index("trial")].sort for row in table.rows]
    assert numbers == list(range(1, 61))
    epochs = [row.cells[titles.index("epochs trained")].sort for row in table.rows]
    assert epochs == [one.epochs for one in evidence.searches[0].attempts]


@pytest.mark.parametrize("count", [450, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.after
def test_very_many_trials_stay_readable_and_quick(count):
    tables = searched.searched(count, epochs=4, val_per_class=8, test_per_class=4)
    start = time.monotonic()
    page = assemble(Evidence(tables))
    assert time.monotonic() - start < 60
    assert page.settings is not None
    assert "Shown are the 20 best of" in page.settings.caption
    assert all(len(picture.svg) < 1_000_000 for picture in page.pictures)
    assert len(page.best_trials.rows) == 400
    assert len(page.trials.rows) == min(count, MOST_ROWS)
    best = {row.cells[0].sort for row in page.best_trials.rows}
    (search,) = Evidence(tables).searches
    assert {one.number for one in search.ranked()[:100]} <= best
