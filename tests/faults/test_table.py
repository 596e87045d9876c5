"""The table of faults is the same in code and document, and no row is without a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.conftest import verdict
from tests.faults.rows import ROWS

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "durability.md"


def test_the_document_lists_the_same_rows() -> None:
    if not DOCUMENT.exists():
        pytest.skip("docs/durability.md is not there")
    lines = re.findall(r"^\| *(\d+) *\| *(.*?) *\| *(.*?) *\|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    listed = {int(number): (plain(what), plain(promise)) for number, what, promise in lines}
    assert listed == {number: (plain(row.what), plain(row.promise)) for number, row in ROWS.items()}


def plain(text: str) -> str:
    """Without the marks of Markdown."""
    return text.replace("`", "")


def rows_with_tests() -> set[int]:
    marks = [
        mark
        for file in HERE.glob("test_*.py")
        for mark in re.findall(r"pytest\.mark\.row\(([\d, ]+)\)", file.read_text(encoding="utf-8"))
    ]
    return {int(number) for mark in marks for number in mark.split(",")}


def test_every_row_has_a_test() -> None:
    assert rows_with_tests() == set(ROWS)


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ({"pass": 2, "fail": 1, "skip": 0}, "FAIL"),
        ({"pass": 2, "fail": 0, "skip": 1}, "pass (1 skipped)"),
        ({"pass": 1, "fail": 0, "skip": 0}, "pass"),
        ({"pass": 0, "fail": 0, "skip": 3}, "skipped"),
        ({"pass": 0, "fail": 0, "skip": 0}, "not run"),
    ],
)
def test_one_word_on_a_row(counts: dict[str, int], word: str) -> None:
    assert verdict(**counts) == word
