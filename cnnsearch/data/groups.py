"""Splits that keep groups whole: images of one patient, one place or one video are never in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnsearch.errors import DataError
from cnnsearch.words import plural, printable, shortened

Rows = NDArray[np.int64]


def deal_groups(
    labels: Rows,
    classes: Sequence[str],
    groups: Rows,
    wanted: Mapping[str, NDArray[Any]],
    seed: int | Sequence[int],
) -> dict[str, Rows]:
    """Divide images among splits so that each group is in one of them, and the sizes are near those that are wanted.

    Groups are dealt from the largest to the smallest, each to the split that then is nearest to its share of every
    class. The seed decides the order of groups of the same size.

    Args:
        labels: [N] label of each row.
        classes: class names.
        groups: [N] group of each row, numbered from 0.
        wanted: split -> [classes] images of each class that it should get.
        seed: of the shuffle.

    Returns:
        Split -> its rows, ascending.

    Raises:
        DataError: a class would have no image in one of the splits that should have some.
    """
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    shuffled = [members[at] for at in np.random.default_rng(seed).permutation(len(members))]
    shuffled.sort(key=len, reverse=True)
    parts = [part for part, sizes in wanted.items() if sizes.sum() > 0]
    lacking = np.array([wanted[part] for part in parts], np.float64)  # [splits, classes]
    sizes = np.maximum(np.bincount(labels, minlength=len(classes)), 1)
    dealt: dict[str, list[Rows]] = {part: [] for part in wanted}
    is_empty = lacking > 0
    left = np.bincount(np.concatenate([np.unique(labels[rows]) for rows in members]), minlength=len(classes))
    for rows in shuffled:
        inside, counts = np.unique(labels[rows], return_counts=True)
        # (lacking - counts)² - lacking², as shares of the class: how much farther each split would be from its share
        worse = ((counts**2 - 2 * counts * lacking[:, inside]) / sizes[inside] ** 2).sum(axis=1)
        if any(scarce := left[inside] <= is_empty[:, inside].sum(axis=0)):  # the last groups go where there is nothing
            worse[~is_empty[:, inside[scarce]].any(axis=1)] = np.inf
        to = int(worse.argmin())
        lacking[to, inside] -= counts
        is_empty[to, inside] = False
        left[inside] -= 1
        dealt[parts[to]].append(rows)
    found = {part: np.sort(np.concatenate(rows)) if rows else labels[:0] for part, rows in dealt.items()}
    _refuse_missing(found, labels, classes, groups, wanted)
    return found


def _refuse_missing(
    found: dict[str, Rows], labels: Rows, classes: Sequence[str], groups: Rows, wanted: Mapping[str, NDArray[Any]]
) -> None:
    lines = []
    for part, rows in found.items():
        counts = np.bincount(labels[rows], minlength=len(classes))
        for label in np.flatnonzero((counts == 0) & (wanted[part] > 0)).tolist():
            has = len(np.unique(groups[labels == label]))
            lines.append(
                f'class "{printable(classes[label])}" would have no {part} images: its images are in '
                f"{plural(has, 'group')}, which stay together."
            )
    if lines:
        raise DataError("\n".join(shortened(lines, "class")))
