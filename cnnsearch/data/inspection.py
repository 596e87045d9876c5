"""Looks at images before anything is trained: copies, plain pictures, sizes and modes that stand out.

All of it depends on the contents alone and is kept beside the decoded images, so the same images are looked at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.alike import alike, is_plain
from cnnsearch.data.examples import Content, stored_order
from cnnsearch.data.images import RECIPE, BadImageError
from cnnsearch.data.looks import KINDS, ODDITIES, Looks, Odd, Pair
from cnnsearch.data.packs import in_threads
from cnnsearch.errors import DiskError
from cnnsearch.storage.durable import read_checked, write_checked

MOST = 20_000
"""Images that are looked at before a sweep: more would take minutes."""
VERSION = 1
"""Raised when other things are found in the same images."""
RARE = 0.05
"""Share of the images below which a mode stands out."""
TIMES_SIZE = 3
"""How many times smaller or larger than the median a side is that stands out."""
TIMES_SHAPE = 2
"""How many times the usual ratio of width and height stands out."""
_AT_ONCE = 64

Shape = tuple[int, int, str]
"""Width, height and mode of an image."""


class Inspection:
    """Looks at images, and keeps what is found in a folder."""

    def __init__(self, folder: Path, threads: int, on_progress: Callable[[int, int], None]) -> None:
        """`threads` open images at a time; `on_progress` is called with (images done, images in all)."""
        self._folder = folder
        self._threads = threads
        self._on_progress = on_progress

    def known(self, digests: Sequence[str]) -> Looks | None:
        """What was found in images with these SHA-256 in this order; None where nobody has looked yet."""
        stored = read_checked(self._path(digests))
        try:
            pairs = tuple(Pair(*pair) for pair in stored["pairs"]) if stored else ()
            odd = tuple(Odd(*one) for one in stored["odd"]) if stored else ()
        except (KeyError, TypeError):
            return None
        rows = [row for pair in pairs for row in (pair.first, pair.second)] + [one.row for one in odd]
        is_ours = all(isinstance(row, int) and 0 <= row < len(digests) for row in rows)
        is_ours = is_ours and all(pair.kind in KINDS for pair in pairs) and all(one.what in ODDITIES for one in odd)
        return Looks(pairs, odd) if stored is not None and is_ours else None

    def look(self, contents: Sequence[Content], digests: Sequence[str], images: NDArray[np.uint8]) -> Looks:
        """Look at images, and keep what is found.

        Args:
            contents: [N] where the images come from, for their sizes and modes.
            digests: [N] SHA-256 of each content.
            images: uint8 [N, 32, 32, 3].
        """
        first_of: dict[str, int] = {}
        same = [
            Pair(first_of[digest], row, "same file")
            for row, digest in enumerate(digests)
            if first_of.setdefault(digest, row) != row
        ]
        rows = np.array(sorted(first_of.values()), np.int64)
        twins = [
            Pair(int(rows[pair.first]), int(rows[pair.second]), "mirrored" if pair.is_mirrored else "alike")
            for pair in alike(images[rows] if same else images, self._on_progress)
        ]
        plain = [Odd(int(row), "one colour", "is all of one colour") for row in np.flatnonzero(is_plain(images))]
        pairs = sorted([*same, *twins], key=lambda pair: (pair.first, pair.second))
        found = Looks(tuple(pairs), (*plain, *odd_shapes(_shapes(contents, self._threads))))
        facts = {
            "pairs": [[pair.first, pair.second, pair.kind] for pair in found.pairs],
            "odd": [[one.row, one.what, one.text] for one in found.odd],
        }
        with contextlib.suppress(OSError, DiskError):  # then it is found again next time
            self._folder.mkdir(parents=True, exist_ok=True)
            write_checked(self._path(digests), facts)
        return found

    def _path(self, digests: Sequence[str]) -> Path:
        key = hashlib.sha256(json.dumps([VERSION, RECIPE, *digests]).encode()).hexdigest()[:32]
        return self._folder / f"{key}.json"


def _shapes(contents: Sequence[Content], threads: int) -> list[Shape | None]:
    def some(part: Sequence[Content]) -> list[Shape | None]:
        found: list[Shape | None] = []
        for content in part:
            try:
                found.append(content.shape())
            except BadImageError:  # it was readable a moment ago
                found.append(None)
        return found

    order = stored_order(contents)
    parts = [[contents[row] for row in order[start : start + _AT_ONCE]] for start in range(0, len(order), _AT_ONCE)]
    shapes = (shape for part in in_threads(some, parts, threads) for shape in part)
    of_row = dict(zip(order, shapes, strict=True))
    return [of_row[row] for row in range(len(contents))]


def odd_shapes(shapes: Sequence[Shape | None]) -> list[Odd]:
    """Find sizes, ratios of sides and modes that stand out; None is an image that is not known."""
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return []
    width, height = median(wide for wide, _, _ in known), median(high for _, high, _ in known)
    modes = Counter(mode for _, _, mode in known)
    usual = modes.most_common(1)[0][0]
    found = []
    for row, shape in enumerate(shapes):
        if shape is None:
            continue
        wide, high, mode = shape
        sides = sorted((wide / width, high / height))
        if sides[0] * TIMES_SIZE < 1 or sides[1] > TIMES_SIZE or sides[1] / sides[0] > TIMES_SHAPE:
            found.append(Odd(row, "size", f"is {wide:,}×{high:,} pixels; the median is {width:,g}×{height:,g}"))
        if mode != usual and modes[mode] < RARE * len(known):
            found.append(Odd(row, "mode", f"has mode {mode}; most have {usual}"))
    return found
