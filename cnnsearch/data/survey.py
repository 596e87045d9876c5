"""A look at images before anything is trained: what there is, from names, sizes and a sample of it."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from cnnsearch.data.examples import Example, FileContent, Listing
from cnnsearch.data.images import BadImageError, decode
from cnnsearch.data.sources import list_path
from cnnsearch.data.splits import assign, suited
from cnnsearch.spec.settings import AutoSplit, ChosenSplit
from cnnsearch.storage.checksums import sha256

SAMPLE = 200
"""Most images that are decoded."""


@dataclass(frozen=True)
class Survey:
    """What was found."""

    listing: Listing
    split: ChosenSplit
    """How the images would be split, as far as their source does not say."""
    counts: dict[str, tuple[int, ...]]
    """Split -> images of each class."""
    side: int
    """The smaller of the median width and the median height of the images in the sample."""
    decoded: int
    """Images of the sample that could be decoded."""
    unreadable: tuple[str, ...]
    """Names of the files that cannot be used, as far as the listing and the sample tell."""
    duplicates: int
    """Files that have the same bytes as an earlier one."""

    @property
    def training(self) -> int:
        """Images that train."""
        return sum(self.counts["train"])

    @property
    def sizes(self) -> list[int]:
        """Images of each class, in all splits."""
        counts = Counter(example.label for example in self.listing.examples)
        return [counts[label] for label in range(len(self.listing.classes))]


def survey(source: str, *, follow_links: bool = False) -> Survey:
    """Look at a folder of images, or at another source that is a path; see `sources.list_path`.

    Raises DataError where it is no such source, has too few images, or the sample has none to read.
    """
    listing = list_path(source, follow_links=follow_links)
    labels = listing.labels()
    to_split = Counter(example.label for example in listing.examples if example.part in (None, "train"))
    sizes = [to_split[label] for label in range(len(listing.classes))]
    groups = listing.groups(range(len(labels)))
    split = suited(AutoSplit(), listing.parts, sizes, grouped=groups is not None)
    parts = [example.part for example in listing.examples]
    rows = assign(listing.parts, parts, labels, listing.classes, split, groups)
    widths, heights, unreadable = _sampled(listing.examples)
    if not widths:
        raise BadImageError(f"{source}: none of {len(unreadable):,} images that were tried can be read.")
    return Survey(
        listing=listing,
        split=split,
        counts={
            part: tuple(int((labels[found] == label).sum()) for label in range(len(listing.classes)))
            for part, found in rows.items()
        },
        side=int(min(median(widths), median(heights))),
        decoded=len(widths),
        unreadable=(*(name for name, _ in listing.problems), *unreadable),
        duplicates=_duplicates(listing.examples),
    )


def _sampled(examples: Sequence[Example]) -> tuple[list[int], list[int], list[str]]:
    """Widths and heights of images that lie evenly among these, and the names of those that cannot be decoded."""
    count = min(SAMPLE, len(examples))
    widths, heights, unreadable = [], [], []
    for example in (examples[at * len(examples) // count] for at in range(count)):
        path = _path(example)
        try:
            content = Path(path).read_bytes()
            decode(content, [8])
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
        except (BadImageError, OSError):
            unreadable.append(example.name)
            continue
        widths.append(width)
        heights.append(height)
    return widths, heights, unreadable


def _duplicates(examples: Sequence[Example]) -> int:
    """Number of files with the bytes of an earlier one. Reads only files that are as long as another."""
    by_length: dict[int, list[str]] = {}
    for example in examples:
        path = _path(example)
        try:
            by_length.setdefault(os.stat(path).st_size, []).append(path)
        except OSError:
            continue
    count = 0
    for paths in by_length.values():
        seen = set()
        for path in paths if len(paths) > 1 else []:
            try:
                digest = sha256(Path(path), follow=True)
            except OSError:
                continue
            count += digest in seen
            seen.add(digest)
    return count


def _path(example: Example) -> str:
    assert isinstance(example.content, FileContent)  # all that a folder holds
    return example.content.path
