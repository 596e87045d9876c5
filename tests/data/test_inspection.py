"""What is looked for in images, and that it is looked for once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsearch.data import inspection as module
from cnnsearch.data.alike import SIDE
from cnnsearch.data.dataset import Dataset
from cnnsearch.data.inspection import odd_shapes
from cnnsearch.data.loading import load
from cnnsearch.data.looks import Looks
from cnnsearch.errors import DataError
from cnnsearch.spec.data import DataSpec
from tests.data.making import encoded, fill_folder, photo, settle


def loaded(folder: Path, cache: Path, *, sizes: tuple[int, ...] = (8,), everything: bool = False) -> Dataset:
    found = load(
        DataSpec(source=str(folder)), sizes, cache=cache, on_check=lambda done, total: None, everything=everything
    )
    assert set(found) == set(sizes)
    return found[sizes[0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten images; in one a copy, a mirrored copy, a plain one, a long one and a grey one."""
    folder = fill_folder(tmp_path / "images", {"a": 10, "b": 10})
    image = photo(1)
    (folder / "a" / "100.png").write_bytes(encoded(image, "PNG"))
    (folder / "b" / "100.png").write_bytes(encoded(image, "PNG"))
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b" / "101.jpg", quality=80)
    Image.new("RGB", (12, 12), (200, 10, 10)).save(folder / "b" / "102.png")
    photo(2, width=300, height=40).convert("L").save(folder / "b" / "103.png")
    return folder


def test_what_is_found(folder: Path, tmp_path: Path) -> None:
    dataset = loaded(folder, tmp_path / "cache")
    assert dataset.looks is not None
    pairs = [(dataset.names[pair.first], dataset.names[pair.second], pair.kind) for pair in dataset.looks.pairs]
    assert pairs == [("a/100.png", "b/100.png", "same file"), ("a/100.png", "b/101.jpg", "mirrored")]
    odd = {(dataset.names[one.row], one.what) for one in dataset.looks.odd}
    assert {("b/102.png", "one colour"), ("b/103.png", "size"), ("b/103.png", "mode")} <= odd
    assert ("b/102.png", "size") not in odd


def test_the_second_time_nothing_is_looked_at(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle()
    first = loaded(folder, tmp_path / "cache")
    packs = {file.name for file in (tmp_path / "cache" / "images").iterdir()}
    for name in ("alike", "is_plain", "_shapes"):
        monkeypatch.delattr(module, name)
    again = loaded(folder, tmp_path / "cache")
    assert again.looks == first.looks
    assert loaded(folder, tmp_path / "cache", sizes=(16,)).looks == first.looks
    made = {file.name for file in (tmp_path / "cache" / "images").iterdir()} - packs
    assert all(f"-{SIDE}." not in name for name in made)


@pytest.mark.parametrize("damage", ['{"pairs": []}', "no json", ""])
def test_what_is_kept_and_damaged_is_found_again(folder: Path, tmp_path: Path, damage: str) -> None:
    first = loaded(folder, tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "looks").iterdir()
    kept.write_text(damage, encoding="utf-8")
    assert loaded(folder, tmp_path / "cache").looks == first.looks
    assert kept.read_text(encoding="utf-8") != damage


def test_other_images_are_looked_at_again(folder: Path, tmp_path: Path) -> None:
    loaded(folder, tmp_path / "cache")
    (folder / "b" / "100.png").unlink()
    again = loaded(folder, tmp_path / "cache")
    assert again.looks is not None
    assert [pair.kind for pair in again.looks.pairs] == ["mirrored"]


def test_without_being_asked_nothing_is_looked_at(folder: Path, tmp_path: Path) -> None:
    assert load(DataSpec(source=str(folder)), [8], cache=tmp_path / "cache")[8].looks is None
    assert not (tmp_path / "cache" / "looks").exists()


def test_images_that_cannot_be_split_are_looked_at_all_the_same(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "images", {"a": 10, "b": 1})
    with pytest.raises(DataError, match='class "b" has 1 image'):
        loaded(folder, tmp_path / "cache")
    dataset = loaded(folder, tmp_path / "cache", everything=True)
    assert len(dataset.labels) == 11
    assert 'class "b" has 1 image' in dataset.warnings[0]
    assert dataset.looks == Looks()


def test_shapes_that_stand_out() -> None:
    usual = [(100, 80, "RGB")] * 40
    odd = odd_shapes([*usual, (100, 80, "L"), None, (400, 320, "RGB"), (100, 30, "RGB"), (250, 200, "RGB")])
    assert [(one.row, one.what) for one in odd] == [(40, "mode"), (42, "size"), (43, "size")]
    assert odd[1].text == "is 400×320 pixels; the median is 100×80"
    assert odd_shapes([(10, 10, "L"), (10, 10, "RGB")] * 5) == []
    assert odd_shapes([None]) == []


def test_rows_are_those_of_the_dataset(folder: Path, tmp_path: Path) -> None:
    dataset = loaded(folder, tmp_path / "cache")
    assert dataset.looks is not None
    assert np.array_equal(np.sort(np.concatenate(list(dataset.indices.values()))), np.arange(len(dataset.names)))
    assert max(pair.second for pair in dataset.looks.pairs) < len(dataset.names)
