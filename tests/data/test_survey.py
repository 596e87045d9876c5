"""What a look at a folder of images finds before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnsearch.data import survey as module
from cnnsearch.data.survey import survey
from cnnsearch.errors import DataError
from cnnsearch.spec.data import StratifiedSplit
from tests.data.making import encoded, fill_folder, picture


def test_counts_sides_and_split(tmp_path: Path) -> None:
    found = survey(str(fill_folder(tmp_path, {"a": 20, "b": 10})))
    assert found.sizes == [20, 10]
    assert (found.side, found.decoded, found.unreadable, found.duplicates) == (12, 30, (), 0)
    assert isinstance(found.split, StratifiedSplit)
    assert found.counts == {"train": (12, 6), "val": (4, 2), "test": (4, 2)}
    assert found.training == 18


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    fill_folder(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "copy.png").write_bytes((tmp_path / "b" / "003.png").read_bytes())
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    (tmp_path / "b" / "notes.txt").write_text("?", encoding="utf-8")
    found = survey(str(tmp_path))
    assert found.duplicates == 1
    assert found.unreadable == ("b/broken.png",)
    assert any("notes.txt" in warning for warning in found.listing.warnings)


def test_it_decodes_a_sample_that_lies_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 6)
    fill_folder(tmp_path, {"a": 10})
    (tmp_path / "b").mkdir()
    for row in range(20):
        (tmp_path / "b" / f"{row:02}.png").write_bytes(encoded(picture(row, side=30), "PNG"))
    found = survey(str(tmp_path))
    assert (found.decoded, found.side) == (6, 30)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        survey(str(tmp_path / "none"))
    with pytest.raises(DataError, match="no images in"):
        survey(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for row in range(5):
            (tmp_path / name / f"{row}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 10 images that were tried can be read"):
        survey(str(tmp_path))
