"""Which images are for training, which for validation, which for test. Pure: labels in, row numbers out.

Rows of a split are always in ascending order, which is the order of the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.dataset import SPLITS
from cnnsearch.data.folds import keep_apart
from cnnsearch.data.groups import deal_groups
from cnnsearch.errors import DataError
from cnnsearch.spec.data import AutoSplit, ChosenSplit, FillSplit, FoldsSplit, Split, StratifiedSplit
from cnnsearch.words import plural, printable, shortened

Rows = NDArray[np.int64]
Rest = Literal["test", "unused"]
LEAST_SHARE = 0.25
"""Share of the images that must train for equal counts of each class to suit them."""


def suited(
    split: Split,
    given: Collection[str],
    sizes: Sequence[int],
    before: ChosenSplit | None = None,
    *,
    grouped: bool = False,
) -> ChosenSplit:
    """Choose how to split images where that was not asked for.

    Args:
        split: what was asked for; anything but `auto` is returned as it is.
        given: the splits that the source brings: all of SPLITS, "train" and "test", or none.
        sizes: of each class, the images there are to split.
        before: how the results folder was split before; it stays if there are enough images.
        grouped: whether some images must stay together, which only a stratified split can see to.
    """
    if not isinstance(split, AutoSplit):
        return split
    rest: Rest = "unused" if "test" in given else "test"
    if "val" in given:
        return FillSplit()  # nothing is split
    if isinstance(before, FoldsSplit):
        return before
    if before is not None and _is_enough(sizes, before, rest) and not (grouped and isinstance(before, FillSplit)):
        return before
    fill = FillSplit()
    if not grouped and _is_enough(sizes, fill, rest) and fill.train_per_class * len(sizes) >= LEAST_SHARE * sum(sizes):
        return fill
    return StratifiedSplit() if rest == "test" else StratifiedSplit(train=0.8, val=0.2)


def in_words(split: Split, given: Collection[str]) -> str:
    """Say how images came into training, validation and test; `given` are the splits that the source brings."""
    if isinstance(split, FoldsSplit):
        times = f", dealt {split.repeats} times (seed {split.seed})" if split.repeats > 1 else f" (seed {split.seed})"
        kept = ", groups as a whole" if split.group else ""
        how = f"{split.k} folds of the others, each class spread over all{kept}{times}"
        test = f"{split.test * 100:g} %" if split.test < 1 else f"{split.test:g}"
        return f"test as the source has it; {how}" if given else f"{test} of each class test; {how}"
    if "val" in given:
        return "training, validation and test as the source has them"
    start, rest = "", "the rest is test"
    if "test" in given:
        start, rest = "test as the source has it; of its training images ", "the rest is not used"
    if isinstance(split, FillSplit):
        return (
            f"{start}in order: {split.train_per_class} training, then {split.val_per_class} validation images of each "
            f"class; {rest}"
        )
    if isinstance(split, AutoSplit):
        return f"{start}as suits the images"
    train, val = (f"{x * 100:g} %" if x < 1 else f"{x:g}" for x in (split.train, split.val))
    after = "" if split.train + split.val == 1 else f"; {rest}"
    return f"{start}at random within each class (seed {split.seed}): {train} training, {val} validation{after}"


def fill(
    labels: Rows, classes: Sequence[str], train_per_class: int, val_per_class: int, *, rest: Rest = "test"
) -> dict[str, Rows]:
    """Take rows in order: of each class the first for training, the next for validation, and the remainder for `rest`.

    Args:
        labels: [N] label of each row, an index into `classes`.
        classes: class names.
        train_per_class: training images of each class.
        val_per_class: validation images of each class.
        rest: name of the remainder. "test" must have at least one image of each class; "unused" may be empty.

    Returns:
        "train", "val" and `rest`, each with its rows.

    Raises:
        DataError: a class has too few images.
    """
    return _deal(labels, classes, lambda size: (train_per_class, val_per_class), lambda label, rows: rows, rest)


def stratified(
    labels: Rows,
    classes: Sequence[str],
    train: int | float,
    val: int | float,
    seed: int,
    *,
    rest: Rest = "test",
    groups: Rows | None = None,
) -> dict[str, Rows]:
    """Shuffle each class, then take its training images, its validation images, and the remainder for `rest`.

    The shuffle of a class depends on (seed, label) alone, so other classes do not change it.

    Args:
        labels: [N] label of each row, an index into `classes`.
        classes: class names.
        train: if below 1, a fraction of each class (rounded half up, at least one image); else images of each class.
        val: the same for validation.
        seed: seed of the shuffle.
        rest: as for `fill`.
        groups: [N] group of each row. Each group then goes to one split as a whole, so that sizes are only near those
            asked for.

    Returns:
        "train", "val" and `rest`, each with its rows in ascending order.

    Raises:
        DataError: a class has too few images, the fractions leave nothing, or a count is not whole.
    """
    for key, amount in (("train", train), ("val", val)):
        if amount <= 0 or not math.isfinite(amount) or (amount >= 1 and amount != int(amount)):
            raise DataError(
                f"data.split.{key} is {amount}; give a fraction below 1, or a whole number of images a class."
            )
    both_fractions = train < 1 and val < 1
    if both_fractions and (train + val > 1 or (rest == "test" and train + val == 1)):
        raise DataError(
            f"data.split takes {train:g} of each class for training and {val:g} for validation; "
            "nothing would be left to test on."
        )

    def wanted(size: int) -> tuple[int, int]:
        return _count(train, size), _count(val, size)

    def shuffled(label: int, rows: Rows) -> Rows:
        return np.random.default_rng([seed, label]).permutation(rows)

    if groups is None:
        return _deal(labels, classes, wanted, shuffled, rest)
    sizes = np.bincount(labels, minlength=len(classes))
    amounts = np.array(_amounts(sizes.tolist(), classes, wanted, rest), np.int64)
    shares = {"train": amounts[:, 0], "val": amounts[:, 1], rest: sizes - amounts.sum(axis=1)}
    return deal_groups(labels, classes, groups, shares, seed)


def assign(
    given: Sequence[str],
    parts: Sequence[str | None],
    labels: Rows,
    classes: Sequence[str],
    split: ChosenSplit,
    groups: Rows | None = None,
) -> dict[str, Rows]:
    """Split a source that may bring all of its splits, only its test split, or none.

    Args:
        given: the splits that the source brings: all of SPLITS, "train" and "test", or none.
        parts: [N] which of them each row is in; None if there are none.
        labels: [N] label of each row.
        classes: class names.
        split: how to split what the source does not. If it brings a test split, validation is taken from its training
            split, and what is left of that is "unused".
        groups: [N] group of each row; one that is split here stays together. None if there are no groups.

    Returns:
        Rows of each of SPLITS, and of "unused" if the source brings a test split but no validation. For folds all that
        does not test is in "train", and "val" is empty.

    Raises:
        DataError: a class has too few images in some split.
    """
    if isinstance(split, FoldsSplit):
        if given:
            test = _rows(parts, "test")
            found = {"train": np.setdiff1d(np.arange(len(labels), dtype=np.int64), test), "test": test}
            _refuse_empty({"test": test}, labels, classes)
        else:
            found = keep_apart(labels, classes, split, groups)
        return {"train": found["train"], "val": labels[:0], "test": found["test"]}
    if not given:
        return _split(labels, classes, split, "test", groups)
    official = {part: _rows(parts, part) for part in SPLITS if part in given}
    if "val" in given:
        _refuse_empty(official, labels, classes)
        return official
    _refuse_empty({"test": official["test"]}, labels, classes)
    train = official["train"]
    inner = _split(labels[train], classes, split, "unused", None if groups is None else groups[train])
    return {**{part: train[rows] for part, rows in inner.items()}, "test": official["test"]}


Single = FillSplit | StratifiedSplit
"""Ways to split images once."""


def _is_enough(sizes: Sequence[int], split: Single, rest: Rest) -> bool:
    """Whether every class has the images that a split takes."""
    return all(size >= sum(_wanted(split, size)) + (rest == "test") for size in sizes)


def _wanted(split: Single, size: int) -> tuple[int, int]:
    """Images for training and for validation of a class of that size."""
    if isinstance(split, FillSplit):
        return split.train_per_class, split.val_per_class
    return _count(split.train, size), _count(split.val, size)


def _split(labels: Rows, classes: Sequence[str], split: Single, rest: Rest, groups: Rows | None) -> dict[str, Rows]:
    if isinstance(split, FillSplit):
        if groups is not None:
            raise DataError(
                "data.split.method is fill, which takes images one by one, but these images have groups, which stay "
                "together. Allowed with groups: auto, stratified"
            )
        return fill(labels, classes, split.train_per_class, split.val_per_class, rest=rest)
    return stratified(labels, classes, split.train, split.val, split.seed, rest=rest, groups=groups)


def _count(amount: int | float, size: int) -> int:
    return int(amount) if amount >= 1 else max(1, math.floor(amount * size + 0.5))


def _rows(parts: Sequence[str | None], part: str) -> Rows:
    return np.array([row for row, given in enumerate(parts) if given == part], np.int64)


def rows_of_classes(labels: Rows, class_count: int) -> list[Rows]:
    """Return the rows of each class, ascending."""
    order = np.argsort(labels, kind="stable").astype(np.int64)
    return np.split(order, np.searchsorted(labels[order], np.arange(1, class_count)))


@dataclass(frozen=True)
class _Short:
    name: str
    has: int
    train: int
    val: int


def _deal(
    labels: Rows,
    classes: Sequence[str],
    wanted: Callable[[int], tuple[int, int]],
    order: Callable[[int, Rows], Rows],
    rest: Rest,
) -> dict[str, Rows]:
    """Divide each class among training, validation and `rest`.

    Args:
        labels: [N] label of each row.
        classes: class names.
        wanted: size of a class -> (training images, validation images) to take from it.
        order: (label, rows of that class) -> the rows in the order to take them.
        rest: as for `fill`.

    Raises:
        DataError: some class has too few images.
    """
    hands: dict[str, list[Rows]] = {"train": [], "val": [], rest: []}
    of_class = rows_of_classes(labels, len(classes))
    amounts = _amounts([len(rows) for rows in of_class], classes, wanted, rest)
    for label, (rows, (train, val)) in enumerate(zip(of_class, amounts, strict=True)):
        dealt = order(label, rows)
        for part, hand in zip(hands, np.split(dealt, [train, train + val]), strict=True):
            hands[part].append(hand)
    return {part: np.sort(np.concatenate(rows)) for part, rows in hands.items()}


def _amounts(
    sizes: Sequence[int], classes: Sequence[str], wanted: Callable[[int], tuple[int, int]], rest: Rest
) -> list[tuple[int, int]]:
    """Return how many images of each class train and validate. Raises DataError where a class has too few."""
    amounts = [wanted(size) for size in sizes]
    short = [
        _Short(name, size, train, val)
        for name, size, (train, val) in zip(classes, sizes, amounts, strict=True)
        if size < train + val + (rest == "test")
    ]
    if short:
        raise DataError(_too_few(short, rest))
    return amounts


def _too_few(short: Sequence[_Short], rest: Rest) -> str:
    noun, test, least = ("image", " + at least 1 test", 1) if rest == "test" else ("training image", "", 0)
    lines = [
        f'class "{printable(item.name)}" has {plural(item.has, noun)}; the split needs '
        f"{item.train + item.val + least:,} ({item.train:,} train + {item.val:,} validation{test})."
        for item in short
    ]
    return "\n".join(shortened(lines, "class"))


def _refuse_empty(given: Mapping[str, Rows], labels: Rows, classes: Sequence[str]) -> None:
    """Raise DataError if some class has no image in some split."""
    empty = [
        f'class "{printable(classes[int(label)])}" has no {part} images.'
        for part, rows in given.items()
        for label in np.flatnonzero(np.bincount(labels[rows], minlength=len(classes)) == 0)
    ]
    if empty:
        raise DataError("\n".join(shortened(empty, "class")))
