"""A decoded data set: labels and splits in memory, pixels memory-mapped from one file.

Beside it, what can be said of one: its fingerprint, warnings about its contents, and single images as PNGs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data.folds import Folds
from cnnsearch.data.images import Interpolation
from cnnsearch.data.looks import Looks
from cnnsearch.spec.data import ChosenJpeg, ChosenSplit, FillSplit
from cnnsearch.storage.checksums import canonical_json
from cnnsearch.words import plural, printable

SHEET_CLASSES = 100
"""Most classes that a report shows images of; of more, the first."""

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
"""Split -> the word that messages and plots use for it."""

SPLITS = tuple(SPLIT_WORDS)
"""The three splits of every data set, in this order everywhere."""

Form = tuple[int, Interpolation]
"""(side of the square images in pixels, how they were resized to it)."""


@dataclass(frozen=True)
class Dataset:
    """Images of one size with their labels and split.

    All trials on a machine share one copy: the pixels stay in `images_path`, which every process maps. Pickling
    carries the path, never the pixels.
    """

    source: str
    """What the user asked for, as text to show."""
    image_size: int
    """Side of the square images, pixels."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    names: tuple[str, ...]
    """[N] name of each example: its path inside the source, or its index."""
    labels: NDArray[np.int64]
    """[N] label of each example."""
    indices: Mapping[str, NDArray[np.int64]]
    """Split -> int64 [n] rows of that split, ascending: the order of training before it is shuffled."""
    images_path: Path
    """A .npy file, uint8 [N, image_size, image_size, 3], RGB."""
    fingerprint: str
    """See `fingerprint`: 16 hex digits that identify contents, classes and split, whatever the paths and image size."""
    warnings: tuple[str, ...] = ()
    """Sentences to show: images that were skipped or not used, uneven classes, images in two splits or two classes."""
    parts: tuple[str, ...] = ()
    """The splits that the source brings: all three, "train" and "test", or none."""
    split: ChosenSplit = field(default_factory=FillSplit)
    """How the images were split, where the source did not bring its splits."""
    jpeg: ChosenJpeg = "exact"
    """How JPEG files were decoded."""
    looks: Looks | None = None
    """What stands out in the images, by their rows; None where that was not asked for."""
    folds: Folds | None = None
    """The folds that all but the test images are dealt into. `indices` are then those of the first one, `fingerprint`
    stands for all of them, and each trial is trained on the data set that `of` gives for its own."""
    contents: str = ""
    """Of a single fold: the fingerprint that it shares with the others, since they have the same images."""

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """[N, S, S, 3] uint8, mapped copy-on-write: shared between processes as long as none writes to it."""
        mapped: NDArray[np.uint8] = np.load(self.images_path, mmap_mode="c")
        return mapped

    def of(self, fingerprint: str) -> Dataset:
        """Return the data set that a trial is trained on: the fold that has this fingerprint, or this one.

        Raises KeyError where there is no such fold.
        """
        if self.folds is None or fingerprint == self.fingerprint:
            return self
        if fingerprint not in self.folds.fingerprints:
            raise KeyError(fingerprint)
        train, val = self.folds.parts(self.folds.fingerprints.index(fingerprint))
        indices = {"train": train, "val": val, "test": self.indices["test"]}
        return replace(self, indices=indices, fingerprint=fingerprint, folds=None, contents=self.fingerprint)

    @property
    def fold_fingerprints(self) -> tuple[str, ...]:
        """Fingerprint of each fold; none where images are split once."""
        return () if self.folds is None else self.folds.fingerprints

    def validation_images(self, fingerprint: str) -> int:
        """Number of images that a trial with these data validates on: with folds, those of its own fold."""
        if self.folds is None or fingerprint not in self.fold_fingerprints:
            return len(self.indices["val"])
        return self.folds.validation_images(fingerprint)

    def counts(self, split: str) -> list[int]:
        """Number of images of each class in a split, in the order of `classes`."""
        counted: list[int] = np.bincount(self.labels[self.indices[split]], minlength=len(self.classes)).tolist()
        return counted

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "images"}


def fingerprint(
    classes: Sequence[str],
    labels: NDArray[np.int64],
    digests: Sequence[str],
    indices: Mapping[str, NDArray[np.int64]],
    *,
    read_as: str = "",
) -> str:
    """What makes two data sets the same data: a hash of classes and, for each split in row order, labels and contents.

    Paths, file names and image size do not count; the order within a split does.

    Args:
        classes: class names.
        labels: [N] label of each example.
        digests: [N] SHA-256 of each example's contents, hex.
        indices: split -> rows of that split.
        read_as: how contents become pixels, where it is not as usual.

    Returns:
        The first 16 hex digits of a SHA-256.
    """
    facts: dict[str, object] = {
        "classes": list(classes),
        "splits": {split: [[int(labels[row]), digests[row]] for row in rows] for split, rows in indices.items()},
    }
    if read_as:
        facts["read_as"] = read_as
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]


_IMBALANCE = 3
"""A split is called uneven when its largest class is at least this many times its smallest."""


def leakage(names: Sequence[str], digests: Sequence[str], indices: Mapping[str, NDArray[np.int64]]) -> tuple[str, ...]:
    """Warn of images in training that are also in validation or test, byte for byte.

    Args:
        names: [N] name of each example.
        digests: [N] SHA-256 of each example's contents, hex.
        indices: split -> rows of that split.

    Returns:
        One sentence, or none.
    """
    in_train = {digests[row]: names[row] for row in reversed(indices["train"].tolist())}
    leaked = [(split, row) for split in ("val", "test") for row in indices[split].tolist() if digests[row] in in_train]
    if not leaked:
        return ()
    split, row = leaked[0]
    parts = " and ".join(SPLIT_WORDS[part] for part in ("val", "test") if any(part == where for where, _ in leaked))
    verb = "is" if len(leaked) == 1 else "are"
    return (
        f"{plural(len(leaked), 'image')} of {parts} {verb} also in training, byte for byte: "
        "accuracy there is too high. "
        f"For example {printable(names[row])} ({SPLIT_WORDS[split]}) is "
        f"{printable(in_train[digests[row]])} (training).",
    )


def leakage_between(
    names: Sequence[str], digests: Sequence[str], folds: Folds, test: NDArray[np.int64]
) -> tuple[str, ...]:
    """Warn of images that are in several folds, or in a fold and in test, byte for byte; one sentence, or none."""
    fold_of = dict(zip(folds.rows.tolist(), folds.dealt(0).tolist(), strict=True)) | dict.fromkeys(test.tolist(), -1)
    first: dict[str, int] = {}
    twice = [
        (first[digests[row]], row)
        for row in sorted(fold_of)
        if fold_of[first.setdefault(digests[row], row)] != fold_of[row]
    ]
    if not twice:
        return ()
    one, other = twice[0]
    return (
        f"{plural(len(twice), 'image')} {'is' if len(twice) == 1 else 'are'} also in another fold or in test, byte for "
        f"byte: accuracy is too high. For example {printable(names[other])} is {printable(names[one])}. "
        "data.split.group keeps such images together.",
    )


def contradictions(
    names: Sequence[str], labels: NDArray[np.int64], digests: Sequence[str], classes: Sequence[str]
) -> tuple[str, ...]:
    """Warn of identical images under different labels; one sentence, or none.

    Args:
        names: [N] name of each example.
        labels: [N] label of each example.
        digests: [N] SHA-256 of each example's contents, hex.
        classes: class names.
    """
    first: dict[str, int] = {}
    pairs = [
        (first[digest], row)
        for row, digest in enumerate(digests)
        if labels[first.setdefault(digest, row)] != labels[row]
    ]
    if not pairs:
        return ()
    one, other = pairs[0]
    return (
        f"{plural(len(pairs), 'image')} {'is' if len(pairs) == 1 else 'are'} identical to one of another class, for "
        f'example {printable(names[one])} ("{printable(classes[labels[one]])}") and {printable(names[other])} '
        f'("{printable(classes[labels[other]])}").',
    )


def imbalance(
    labels: NDArray[np.int64], indices: Mapping[str, NDArray[np.int64]], classes: Sequence[str]
) -> tuple[str, ...]:
    """Warn of each split with a class at least three times as large as another; one sentence for each such split.

    Overall accuracy then says most about the largest class.
    """
    sentences = []
    for split, rows in indices.items():
        counts = np.bincount(labels[rows], minlength=len(classes))
        few, many = int(counts.argmin()), int(counts.argmax())
        if counts[many] and counts[many] >= _IMBALANCE * counts[few]:
            sentences.append(
                f"Classes are uneven in {SPLIT_WORDS[split]}: from {plural(int(counts[few]), 'image')} "
                f'("{printable(classes[few])}") to {counts[many]:,} ("{printable(classes[many])}").'
            )
    return tuple(sentences)


MAX_SIDE = 64
"""Side in pixels above which a picture is made smaller."""


def png(dataset: Dataset, row: int) -> bytes:
    """Encode one image, as the network sees it, as a PNG of at most 64×64 pixels.

    Args:
        dataset: the decoded images.
        row: its row in `dataset.images`, 0 to N − 1.

    Raises:
        IndexError: no such row.
    """
    if not 0 <= row < len(dataset.labels):
        raise IndexError(f"row {row} of {len(dataset.labels)}")
    image = Image.fromarray(dataset.images[row])
    if image.width > MAX_SIDE:
        image = image.resize((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
