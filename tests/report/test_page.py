"""What a report says of the data."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from cnnsearch.evidence.evidence import Evidence
from cnnsearch.report import html, markdown
from cnnsearch.report.page import assemble
from cnnsearch.report.paper import tables_of
from cnnsearch.report.pictures import Picture
from tests.report import factory

OFFERED = {
    (): "in order: 50 training, then 20 validation images of each class; the rest is test",
    ("train", "test"): "test as the source has it; of its training images in order: 50 training, then 20 validation "
    "images of each class; the rest is not used",
    ("train", "val", "test"): "training, validation and test as the source has them",
}

BLANK = Picture("confusion", "", "", "", Markup(), Markup(), Figure)


@pytest.mark.usefixtures("figures_left_blank")
@pytest.mark.parametrize("parts", OFFERED)
def test_the_split_is_told_as_it_was_made(parts: tuple[str, ...]) -> None:
    tables = factory.one_trial()
    given = replace(tables, data={**tables.data, "parts": list(parts)})
    assert dict(assemble(Evidence(given)).data_facts)["split"] == OFFERED[parts]


def rows_of(text: str, caption: str) -> int:
    """Rows of the table of a page with this caption."""
    (table,) = re.findall(rf'aria-label="{caption}">\s*<table.*?</table>', text, flags=re.DOTALL)
    return int(table.count("<tr")) - 1


def test_tables_of_very_many_rows_are_cut_short_on_the_page_and_whole_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = Evidence(factory.make(factory.grid_plans(), [factory.GRID]))
    page = assemble(evidence, lambda drawings: {})
    text = html.render(replace(page, confusion=BLANK))
    assert (rows_of(text, "All trials"), rows_of(text, "Recall of each class")) == (8, 10)
    assert not re.search(r"best of \d+ trials|lowest of", text + markdown.render(page))
    whole = tables_of(page)

    monkeypatch.setattr("cnnsearch.report.page.MOST_ROWS", 3)
    page = assemble(evidence, lambda drawings: {})
    text = html.render(replace(page, confusion=BLANK))
    assert (rows_of(text, "Trials"), rows_of(text, "Recall of each class")) == (3, 3)
    assert "The 3 best of 8 trials by validation accuracy; trials.parquet has all." in text
    assert "The 3 lowest of 10 classes." in text
    best = {row.cells[-1].text for row in page.trials.rows if row.is_best}
    assert best == {"done"}
    assert tables_of(page) == whole
    assert len(whole["trials"].rows) == 8

    monkeypatch.setattr("cnnsearch.report.page._MOST_LISTED", 2)
    text = markdown.render(assemble(evidence, lambda drawings: {}))
    assert "The 2 best of 8 trials by validation accuracy; trials.parquet has all." in text


def test_of_very_many_classes_the_first_have_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = factory.one_trial()
    sheet = {name: ["UE5H"] for name in tables.data["classes"]}
    evidence = Evidence(replace(tables, pictures={"sheet": sheet}))
    text = html.render(assemble(evidence, lambda drawings: {}))
    assert "<h3>Some images of each class</h3>" in text
    assert text.count("base64,UE5H") == 10
    monkeypatch.setattr("cnnsearch.report.page.SHEET_CLASSES", 4)
    text = html.render(assemble(evidence, lambda drawings: {}))
    assert "<h3>Some images of the first 4 of 10 classes</h3>" in text
    assert text.count("base64,UE5H") == 4
