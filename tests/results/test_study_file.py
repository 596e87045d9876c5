from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from cnnsearch.results.folder import Results
from cnnsearch.results.study_file import StudyFile
from cnnsearch.spec.cells import Cell

SUGGESTIONS: list[Cell] = [{"lr": 0.1 + 0.2, "model": "plain"}, {"lr": 1e-300, "model": "résidu"}, {"batch_size": 3}]
ABOUT = {"stage": "search", "group": ["plain"], "method": "tpe"}

cells = st.dictionaries(
    st.sampled_from(["lr", "model", "batch_size"]),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1) | st.text('aé\n"', max_size=5),
)


@pytest.fixture
def file(tmp_path: Path) -> StudyFile:
    found = StudyFile(tmp_path / "studies" / "0123.jsonl")
    found.append(0, SUGGESTIONS[:2], ABOUT)
    found.append(2, SUGGESTIONS[2:], ABOUT)
    return found


@settings(max_examples=30, deadline=None)
@given(suggestions=st.lists(cells, max_size=5))
def test_suggestions_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, suggestions: list[Cell]) -> None:
    file = StudyFile(tmp_path_factory.mktemp("study") / "studies" / "0.jsonl")
    assert file.read() == []
    for number, one in enumerate(suggestions):
        file.append(number, [one], ABOUT)
    assert file.read() == suggestions
    assert not file.repair()


def test_a_cut_file_keeps_its_whole_lines_and_can_be_added_to(file: StudyFile) -> None:
    whole = file.path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(0, len(whole), 7):
        file.path.write_bytes(whole[:size])
        left = sum(end <= size for end in ends)
        assert file.read() == SUGGESTIONS[:left]
        assert not file.repair()
        file.append(left, SUGGESTIONS[left:], ABOUT)
        assert file.path.read_bytes() == whole


@pytest.mark.parametrize("place", [5, 200, 400])
def test_what_follows_damage_is_set_aside(file: StudyFile, place: int) -> None:
    stored = bytearray(file.path.read_bytes())
    stored[place] ^= 1
    file.path.write_bytes(stored)
    left = stored[:place].count(b"\n")
    results = Results(file.path.parent.parent)
    assert results.suggestions() == {"0123": SUGGESTIONS[:left]}
    assert results.set_damaged_aside() == ["studies/0123.jsonl"]
    assert (file.path.parent / "0123.jsonl.damaged").read_bytes() == stored
    assert results.suggestions() == {"0123": SUGGESTIONS[:left]}
    assert results.set_damaged_aside() == []
