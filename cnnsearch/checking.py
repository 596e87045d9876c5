"""What was found in images before anything is trained, in words, as a table and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from cnnsearch import told
from cnnsearch.data.alike import SIDE
from cnnsearch.data.dataset import SPLIT_WORDS, Dataset
from cnnsearch.data.loading import load
from cnnsearch.data.looks import Kind, Looks, Pair
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.prepare import Tell, quiet
from cnnsearch.spec.data import DataSpec
from cnnsearch.storage.durable import write_whole
from cnnsearch.words import LISTED, counted, labelled, listed, printable

SMALL_CLASS = 3
"""How many times smaller than the median class is far smaller."""
SHOWN_PAIRS = 6
"""Pairs that a report shows as pictures."""
COLUMNS = ("problem", "file", "split", "class", "other_file", "other_split", "other_class", "detail")
KINDS: dict[Kind, str] = {"same file": "same file", "alike": "same picture", "mirrored": "same picture, mirrored"}
"""Kind of a pair -> the words for it."""


class Checked:
    """The images of a data set with what was found in them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.looks = dataset.looks or Looks()
        self._splits = ["unused"] * len(dataset.labels)
        for split, rows in dataset.indices.items():
            for row in rows:
                self._splits[row] = split

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs; first those with different labels, then those across splits."""

        def order(pair: Pair) -> tuple[bool, bool, int, int]:
            return not self.differs(pair), not self.is_across(pair), pair.first, pair.second

        return sorted(self.looks.pairs, key=order)

    def differs(self, pair: Pair) -> bool:
        """Whether the two have different labels."""
        return bool(self.dataset.labels[pair.first] != self.dataset.labels[pair.second])

    def is_across(self, pair: Pair) -> bool:
        """Whether the two are in different splits."""
        return self._splits[pair.first] != self._splits[pair.second]

    def image(self, row: int) -> told.CheckedImage:
        """An image by its row."""
        return told.CheckedImage(
            file=self.dataset.names[row],
            split=SPLIT_WORDS.get(self._splits[row], "unused"),
            label=self.dataset.classes[self.dataset.labels[row]],
        )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Class -> number of its images."""
        counts = np.bincount(self.dataset.labels, minlength=len(self.dataset.classes)).tolist()
        return dict(zip(self.dataset.classes, counts, strict=True))

    def small_classes(self) -> list[tuple[str, int]]:
        """Classes far smaller than others, with their numbers of images."""
        usual = median(self.sizes.values())
        return [(name, size) for name, size in self.sizes.items() if size * SMALL_CLASS < usual]

    def lines(self) -> list[tuple[str, str]]:
        """(what, how many) for everything that was found."""
        found = []
        if pairs := self.looks.pairs:
            across, differ = (sum(map(which, pairs)) for which in (self.is_across, self.differs))
            more = [f"{across:,} across splits"] * bool(across) + [f"{differ:,} with different labels"] * bool(differ)
            tail = f": {listed(more)}" if more else ""
            found.append(("copies", f"{counted(len(pairs), 'pair')} of images with almost the same picture{tail}"))
        for what, words in (("one colour", "all of one colour"), ("size", "of unusual size"), ("mode", "of rare mode")):
            rows = [odd for odd in self.looks.odd if odd.what == what]
            if rows:
                example = f"{printable(self.dataset.names[rows[0].row])} {rows[0].text}"
                many = f"{len(rows):,} images {words}, for example " if len(rows) > 1 else ""
                found.append((what, f"{many}{example}"))
        if small := self.small_classes():
            names = listed([f"{printable(name)} ({size:,})" for name, size in small[:LISTED]])
            more_classes = f" and {len(small) - LISTED:,} more" if len(small) > LISTED else ""
            found.append(
                (
                    "small classes",
                    f"{names}{more_classes}; half of the classes have {median(self.sizes.values()):,g} or more",
                )
            )
        return found

    def summary(self) -> str:
        """One line for a plan; empty where nothing was found."""
        pairs, parts = self.looks.pairs, []
        if pairs:
            parts.append(dict(self.lines())["copies"])
        if self.looks.odd:
            parts.append(
                f"{counted(len({odd.row for odd in self.looks.odd}), 'image')} that stand out".replace(
                    "1 image that stand", "1 image that stands"
                )
            )
        return "; ".join(parts)

    def table(self) -> pd.DataFrame:
        """One row for each finding; columns of `COLUMNS`."""
        return pd.DataFrame(list(self._rows()), columns=list(COLUMNS))

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for pair in self.pairs:
            one, other = self.image(pair.first), self.image(pair.second)
            ends = (one.file, one.split, one.label, other.file, other.split, other.label)
            yield "copy", *ends, KINDS[pair.kind]
        for odd in self.looks.odd:
            one = self.image(odd.row)
            yield odd.what, one.file, one.split, one.label, "", "", "", odd.text
        for name, size in self.small_classes():
            yield "small class", "", "", name, "", "", "", f"has {counted(size, 'image')}"

    def recorded(self, *, is_sealed: bool) -> dict[str, object]:
        """What a results folder keeps: lines, and the pairs that a report shows; of a sealed test set no names."""
        shown = [
            pair
            for pair in self.pairs
            if not is_sealed or "test" not in (self._splits[pair.first], self._splits[pair.second])
        ][:SHOWN_PAIRS]
        pairs = [
            {"kind": pair.kind, "images": [self.image(row).model_dump() for row in (pair.first, pair.second)]}
            for pair in shown
        ]
        return {"lines": [list(line) for line in self.lines()], "pairs": pairs}


def check(source: str, tell: Tell = quiet, *, follow_links: bool = False) -> Checked:
    """Look at the images of a source. Raises DataError where there are none."""
    found = load(
        DataSpec(source=source, on_bad_image="skip", follow_links=follow_links),
        [SIDE],
        threads=detect().cores,
        on_progress=lambda done, total: tell("reading the images", done, total),
        on_check=lambda done, total: tell("looking for copies among the images", done, total),
        everything=True,
    )
    return Checked(found[SIDE])


def write(found: Checked, file: Path) -> None:
    """Write the table of findings. Raises DiskError."""
    write_whole(file, found.table().to_csv(index=False).encode(errors="backslashreplace"))


def text(found: Checked, file: Path | None) -> str:
    """What was found, for a terminal."""
    dataset = found.dataset
    images = f"{counted(len(dataset.labels), 'image')} in {counted(len(dataset.classes), 'class', 'classes')}"
    rows = [("images", images), *(("note", printable(line)) for line in dataset.warnings), *found.lines()]
    if len(rows) == 1:
        rows.append(("found", "nothing that stands out"))
    if file is not None:
        rows.append(("written", str(file)))
    lines = [labelled(rows)]
    if file is None and found.pairs:
        lines += ["", *(_pair_line(found, pair) for pair in found.pairs[: 2 * LISTED])]
        if len(found.pairs) > 2 * LISTED:
            lines.append(f"and {len(found.pairs) - 2 * LISTED:,} more pairs; --out FILE.csv lists all")
    return "\n".join(lines)


def _pair_line(found: Checked, pair: Pair) -> str:
    one, other = (found.image(row) for row in (pair.first, pair.second))
    ends = [f"{printable(image.file)} ({image.split})" for image in (one, other)]
    differs = f", labels differ: {printable(one.label)}, {printable(other.label)}" if found.differs(pair) else ""
    return f"{ends[0]} = {ends[1]}  {KINDS[pair.kind]}{differs}"


def answer(found: Checked, source: str, file: Path | None) -> told.Checked:
    """What `--json` prints."""
    pairs = [
        told.CheckedPair(kind=pair.kind, images=[found.image(pair.first), found.image(pair.second)])
        for pair in found.pairs
    ]
    return told.Checked(
        source=source,
        images=len(found.dataset.labels),
        classes=found.sizes,
        small_classes=[name for name, _ in found.small_classes()],
        warnings=list(found.dataset.warnings),
        pairs=None if file else pairs,
        pairs_found=len(pairs),
        across_splits=sum(map(found.is_across, found.pairs)),
        labels_differ=sum(map(found.differs, found.pairs)),
        standing_out=[
            told.CheckedOdd(image=found.image(odd.row), what=odd.what, why=odd.text) for odd in found.looks.odd
        ],
        out=str(file) if file else None,
    )
