"""Copies of pictures are found however they were made, and pictures that only look alike are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data import alike as module, fashion_mini
from cnnsearch.data.alike import SIDE, Alike, alike, is_plain
from cnnsearch.data.images import resized
from tests.data.making import photo, recompressed

PHOTOS = 200


def squares(images: list[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([resized(image.convert("RGB"), [SIDE])[0] for image in images])


def cropped(image: Image.Image, number: int) -> Image.Image:
    """With 5 % of its width and height cut off, somewhere."""
    width, height = image.width // 20, image.height // 20
    x, y = np.random.default_rng(number).integers(0, (width + 1, height + 1))
    return image.crop((x, y, image.width - width + x, image.height - height + y))


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [photo(number) for number in range(PHOTOS)]


@pytest.fixture(scope="module")
def found(photos: list[Image.Image]) -> list[Alike]:
    """Pairs among 200 photographs and three copies of each."""
    copies = [
        *photos,
        *(recompressed(image, 60 + number % 31) for number, image in enumerate(photos)),
        *(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in photos),
        *(cropped(image, number) for number, image in enumerate(photos)),
    ]
    return alike(squares(copies))


@pytest.mark.parametrize(("copy", "is_mirrored"), [(1, False), (2, True), (3, False)], ids=["jpeg", "mirror", "crop"])
def test_nine_of_ten_copies_are_found(found: list[Alike], copy: int, *, is_mirrored: bool) -> None:
    originals = {
        pair.first
        for pair in found
        if pair.second == pair.first + copy * PHOTOS and pair.first < PHOTOS and pair.is_mirrored == is_mirrored
    }
    assert len(originals) >= 0.9 * PHOTOS


def test_no_other_photographs_are_called_copies(found: list[Alike]) -> None:
    assert [pair for pair in found if pair.first % PHOTOS != pair.second % PHOTOS] == []


def test_grey_pictures_of_clothes_are_told_apart() -> None:
    """Fewer false pairs than one for 100 images; false is a pair whose pixels differ by more than 12 levels of 255."""
    grey = fashion_mini.images().reshape(-1, 28, 28)
    pairs = alike(squares([Image.fromarray(image) for image in grey]))
    pixels = grey.astype(float)
    false = [
        pair
        for pair in pairs
        if np.abs(
            (pixels[pair.first][:, ::-1] if pair.is_mirrored else pixels[pair.first]) - pixels[pair.second]
        ).mean()
        > 12
    ]
    assert len(false) < 0.01 * len(grey)
    assert (200, 240) in [pair[:2] for pair in pairs]  # the same trousers, twice in the official set


def test_recompressed_clothes_are_found_among_clothes() -> None:
    some = [Image.fromarray(image) for image in fashion_mini.images()[:, :20].reshape(-1, 28, 28)]
    pairs = {pair[:2] for pair in alike(squares([*some, *(recompressed(image, 80) for image in some)]))}
    assert sum((row, row + len(some)) in pairs for row in range(len(some))) >= 0.9 * len(some)


def test_blocks_change_nothing(photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    images = squares([*photos[:40], *(recompressed(image, 75) for image in photos[:40])])
    whole = alike(images)
    for name in ("_ROWS", "_COLUMNS", "_CHUNK"):
        monkeypatch.setattr(module, name, 7)
    assert [pair[:3] for pair in alike(images)] == [pair[:3] for pair in whole]
    assert len(whole) == 40


def test_many_copies_of_one_picture_stay_few_pairs(photos: list[Image.Image]) -> None:
    pairs = alike(np.repeat(squares(photos[:1]), 300, axis=0))
    assert {row for pair in pairs for row in pair[:2]} == set(range(300))
    assert len(pairs) <= 300 * 2 * module.MOST_OF_ONE


def test_plain_pictures_are_no_copies_of_each_other() -> None:
    plain = np.full((3, SIDE, SIDE, 3), 200, np.uint8)
    plain[1, 4, 4] += 3
    assert is_plain(plain).tolist() == [True] * 3
    plain[2, 4, 4] += 30
    assert is_plain(plain).tolist() == [True, True, False]
    assert alike(plain) == []


def test_nothing_and_progress(photos: list[Image.Image]) -> None:
    assert alike(np.zeros((0, SIDE, SIDE, 3), np.uint8)) == []
    told: list[tuple[int, int]] = []
    alike(squares(photos[:3]), lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (3, 3)]
