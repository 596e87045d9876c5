"""A look at images before anything is trained: what there is, from names, sizes and a sample of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from cnnsearch.data.examples import Example, FileContent, InnerContent, Listing, stored_order
from cnnsearch.data.images import BadImageError, decode, shape
from cnnsearch.data.sources import list_path
from cnnsearch.data.splits import assign, suited
from cnnsearch.spec.data import AutoSplit, ChosenSplit

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
    chosen = [examples[at * len(examples) // count] for at in range(count)]
    shapes: dict[int, tuple[int, int] | None] = {}
    for row in stored_order([example.content for example in chosen]):
        try:
            content = _stored(chosen[row]).read()
            decode(content, [8])
            shapes[row] = shape(content)[:2]
        except BadImageError:
            shapes[row] = None
    found = [size for _, size in sorted(shapes.items()) if size is not None]
    unreadable = [chosen[row].name for row, size in sorted(shapes.items()) if size is None]
    return [width for width, _ in found], [height for _, height in found], unreadable


def _duplicates(examples: Sequence[Example]) -> int:
    """Number of images with the bytes of an earlier one. Reads only those that may be as long as another."""
    by_length: dict[int | None, list[FileContent | InnerContent]] = {}
    for content in map(_stored, examples):
        by_length.setdefault(content.length(), []).append(content)
    count = 0
    for length, contents in by_length.items():
        if len(contents) < 2 or (length is None and isinstance(contents[0], FileContent)):  # these cannot be read
            continue
        seen = set()
        for row in stored_order(contents):
            try:
                digest = hashlib.sha256(contents[row].read()).digest()
            except BadImageError:
                continue
            count += digest in seen
            seen.add(digest)
    return count


def _stored(example: Example) -> FileContent | InnerContent:
    assert isinstance(example.content, FileContent | InnerContent)  # all that a path holds
    return example.content
