"""Finds pictures that are there twice: compressed again, mirrored, or with their edges cut off.

Candidates have perceptual hashes (pHash: which low frequencies of a cosine transform are above their median) that
differ in few bits. They are then compared pixel by pixel. Where nothing else looks alike, as among photographs, they
may differ more, and are laid over each other with edges cut off. Where much looks alike, as small pictures of shirts
do, only what is almost the same counts. Nothing here takes memory with the square of the number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side in pixels of the squares that are compared."""
LEAST_CONTRAST = 4.0
"""Standard deviation of pixels, in levels of 255, below which a picture is too plain to be compared."""
NEAR_BITS = 18
"""Most bits of 64 in which the hashes of candidates differ."""
SAME = 0.15
"""Most that two pictures of one image differ: root mean square of the difference of pixels, by their contrast."""
SAME_PHOTO = 0.28
"""The same after edges were cut off, for images that nothing else looks like."""
LOOKS_ALIKE = 0.8
"""Difference below which one image looks like another, for counting those."""
CROWD = 4
"""Images that may look like an image for `SAME_PHOTO` to hold."""
MOST_OF_ONE = 20
"""Most partners of one image that a block of images adds."""
COLOUR = 24.0
"""Most levels by which the mean colours of two pictures of one image differ."""
_BITS, _SMALL = 8, 16
_ROWS, _COLUMNS, _CHUNK = 512, 4096, 4096
_GREY = np.array([0.299, 0.587, 0.114], np.float32)

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Alike(NamedTuple):
    """Two rows whose images show the same picture, the first before the second."""

    first: int
    second: int
    is_mirrored: bool
    difference: float
    """Root mean square of the difference of pixels, by their contrast."""


class _Pairs(NamedTuple):
    """[P] pairs of rows."""

    first: Rows
    second: Rows
    mirrored: NDArray[np.bool_]
    difference: Floats

    def only(self, which: NDArray[Any]) -> _Pairs:
        return _Pairs(*(part[which] for part in self))


def alike(images: Images, on_progress: Callable[[int, int], None] = lambda done, total: None) -> list[Alike]:
    """Find the pairs of images that show the same picture.

    Args:
        images: uint8 [N, 32, 32, 3], RGB; may be mapped.
        on_progress: called with (images done, N).

    Returns:
        Pairs in the order of their rows. Pictures that are too plain to be compared are in none.
    """
    count = len(images)
    codes, mirrored, small, contrast = _described(images)
    rows = np.flatnonzero(contrast >= LEAST_CONTRAST)
    crowd = np.zeros(count, np.int64)
    kept: list[_Pairs] = []
    for start in range(0, len(rows), _ROWS):
        on_progress(int(rows[start]), count)
        some = rows[start : start + _ROWS]
        for begin in range(start, len(rows), _COLUMNS):
            others = rows[begin : begin + _COLUMNS]
            for flips, left in ((False, codes), (True, mirrored)):
                one = _flipped(small[some]) if flips else small[some]
                near = left[some] @ codes[others].T >= _BITS**2 - 2 * NEAR_BITS
                closeness = _closeness(one, small[others], contrast[some], contrast[others])
                near &= closeness >= 0
                found = np.nonzero(near)
                first, second = some[found[0]], others[found[1]]
                spread = (contrast[first] ** 2 + contrast[second] ** 2) / 2
                squares = LOOKS_ALIKE**2 - closeness[found] / spread
                differs = np.sqrt(np.maximum(squares, 0)).astype(np.float32)
                pairs = _Pairs(first, second, np.full(len(first), flips), differs)
                kept.append(_worth_a_look(pairs.only(first < second), crowd))
    on_progress(count, count)
    return _confirmed(images, contrast, crowd, kept)


def is_plain(images: Images, most: int = 8) -> NDArray[np.bool_]:
    """[N] whether all pixels of an image are within a few levels of one colour."""
    found = np.zeros(len(images), np.bool_)
    for start in range(0, len(images), _CHUNK):
        some = images[start : start + _CHUNK]
        ranges = some.max(axis=(1, 2)).astype(np.int64) - some.min(axis=(1, 2))
        found[start : start + _CHUNK] = ranges.max(axis=1) <= most
    return found


def _described(images: Images) -> tuple[Floats, Floats, Floats, Floats]:
    """Hashes as [N, 64] of 1 and -1, those of the mirrored images, [N, 256] grey thumbnails, and [N] contrasts."""
    from scipy.fft import dctn  # it takes a while to import

    count = len(images)
    codes, mirrored = (np.empty((count, _BITS**2), np.float32) for _ in range(2))
    small, contrast = np.empty((count, _SMALL**2), np.float32), np.empty(count, np.float32)
    signs = np.where(np.arange(_BITS) % 2, -1, 1)  # a mirror turns the odd frequencies around
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        pixels = images[part].astype(np.float32)
        grey = pixels @ _GREY - 128
        frequencies = dctn(grey, axes=(1, 2))[:, :_BITS, :_BITS]
        codes[part], mirrored[part] = _code(frequencies), _code(frequencies * signs)
        small[part] = grey.reshape(-1, _SMALL, 2, _SMALL, 2).mean(axis=(2, 4)).reshape(-1, _SMALL**2)
        contrast[part] = np.sqrt(pixels.var(axis=(1, 2)).mean(axis=1))
    return codes, mirrored, small, contrast


def _code(frequencies: Floats) -> Floats:
    flat = frequencies.reshape(len(frequencies), -1)
    return np.where(flat > np.median(flat, axis=1, keepdims=True), np.float32(1), np.float32(-1))


def _flipped(small: Floats) -> Floats:
    return small.reshape(-1, _SMALL, _SMALL)[:, :, ::-1].reshape(small.shape)


def _closeness(one: Floats, other: Floats, contrast: Floats, contrasts: Floats) -> Floats:
    """[R, C] how much closer than `LOOKS_ALIKE` each of some thumbnails is to each of others, as mean squares.

    It is that (a - b)² is a² + b² - 2ab, so a product of matrices compares all of them.
    """
    left, right = (
        (some**2).mean(axis=1) - (LOOKS_ALIKE * spread) ** 2 / 2
        for some, spread in ((one, contrast), (other, contrasts))
    )
    scaled = one * np.float32(2 / one.shape[1])
    columns = (np.ones_like(left), np.ones_like(right))
    found: Floats = np.column_stack([scaled, -left, columns[0]]) @ np.column_stack([other, columns[1], -right]).T
    return found


def _worth_a_look(pairs: _Pairs, crowd: Rows) -> _Pairs:
    """Count images that look alike in `crowd`, and keep their pairs; of images in a crowd only the closest."""
    crowd += np.bincount(pairs.first, minlength=len(crowd)) + np.bincount(pairs.second, minlength=len(crowd))
    lonely = (crowd[pairs.first] <= CROWD) & (crowd[pairs.second] <= CROWD)
    pairs = pairs.only(lonely | (pairs.difference <= SAME))
    return pairs.only(_place_in_run(pairs.first) < MOST_OF_ONE)


def _place_in_run(values: Rows) -> Rows:
    """[P] how many equal values stand directly before each."""
    places = np.arange(len(values))
    begins = np.r_[True, values[1:] != values[:-1]] if len(values) else np.zeros(0, np.bool_)
    return places - np.maximum.accumulate(np.where(begins, places, 0)) if len(values) else places


def _relative(squares: Floats, one: Floats, other: Floats) -> Floats:
    return np.sqrt(squares * 2 / (one**2 + other**2)).astype(np.float32)


def _confirmed(images: Images, contrast: Floats, crowd: Rows, kept: list[_Pairs]) -> list[Alike]:
    """Compare the pairs that are left pixel by pixel."""
    if not kept:
        return []
    pairs = _Pairs(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
    lonely = (crowd[pairs.first] <= CROWD) & (crowd[pairs.second] <= CROWD)
    best: dict[tuple[int, int], Alike] = {}
    size = 256
    for start in range(0, len(pairs.first), size):
        some, is_lonely = (
            pairs.only(np.arange(start, min(start + size, len(pairs.first)))),
            lonely[start : start + size],
        )
        left, right = images[some.first].astype(np.float32), images[some.second].astype(np.float32)
        left = np.where(some.mirrored[:, None, None, None], left[:, :, ::-1], left)
        differs = _relative(((left - right) ** 2).mean(axis=(1, 2, 3)), contrast[some.first], contrast[some.second])
        same = differs <= SAME
        tried = np.flatnonzero(is_lonely & ~same)
        if len(tried):
            cut = _relative(
                _least_squares(left[tried] @ _GREY, right[tried] @ _GREY),
                contrast[some.first[tried]],
                contrast[some.second[tried]],
            )
            colours = np.abs(left[tried].mean(axis=(1, 2)) - right[tried].mean(axis=(1, 2))).max(axis=1)
            same[tried] = (cut <= SAME_PHOTO) & (colours <= COLOUR)
            differs[tried] = cut
        for at in np.flatnonzero(same):
            pair = Alike(int(some.first[at]), int(some.second[at]), bool(some.mirrored[at]), float(differs[at]))
            known = best.get(pair[:2])
            if known is None or pair.difference < known.difference - 0.01:  # a symmetric picture is not a mirrored one
                best[pair[:2]] = pair
    return sorted(best.values())


def _windows() -> Floats:
    """[2, 3, 32, 32]: matrices that stretch 95 % and 90 % of a side, from its start, middle or end, to all of it."""
    found = np.zeros((2, 3, SIDE, SIDE), np.float32)
    for size, share in enumerate((0.05, 0.1)):
        for place in range(3):
            at = place / 2 * share * SIDE + (np.arange(SIDE) + 0.5) * (1 - share) - 0.5
            at = np.clip(at, 0, SIDE - 1)
            low = np.floor(at).astype(np.int64)
            high = np.minimum(low + 1, SIDE - 1)
            np.add.at(found[size, place], (np.arange(SIDE), low), (1 - (at - low)).astype(np.float32))
            np.add.at(found[size, place], (np.arange(SIDE), high), (at - low).astype(np.float32))
    return found


_WINDOWS = _windows()


def _least_squares(left: Floats, right: Floats) -> Floats:
    """[P] mean square of the difference of grey images [P, 32, 32], with the edges of either cut off as suits best."""
    least = np.full(len(left), np.inf, np.float32)
    for whole, other in ((left, right), (right, left)):
        for size in _WINDOWS:
            for columns in size:
                across = whole @ columns.T
                for rows in size:
                    np.minimum(least, ((rows @ across - other) ** 2).mean(axis=(1, 2)), out=least)
    return least
