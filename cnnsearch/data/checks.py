"""What people should know about their data before they believe an accuracy. Pure: facts in, sentences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.wording import plural, printable

_IMBALANCE = 3
"""Largest over smallest class from which on a split is called uneven."""

_WORDS = {"train": "training", "val": "validation", "test": "test"}


def leakage(names: Sequence[str], digests: Sequence[str], indices: Mapping[str, NDArray[np.int64]]) -> tuple[str, ...]:
    """Identical images on both sides of the line between training and what it is judged by."""
    in_train = {digests[row]: names[row] for row in reversed(indices["train"].tolist())}
    leaked = [(split, row) for split in ("val", "test") for row in indices[split].tolist() if digests[row] in in_train]
    if not leaked:
        return ()
    split, row = leaked[0]
    parts = " and ".join(_WORDS[part] for part in ("val", "test") if any(part == where for where, _ in leaked))
    verb = "is" if len(leaked) == 1 else "are"
    return (
        f"{plural(len(leaked), 'image')} of {parts} {verb} also in training, byte for byte: "
        "accuracy there is too high. "
        f"For example {printable(names[row])} ({_WORDS[split]}) is {printable(in_train[digests[row]])} (training).",
    )


def contradictions(
    names: Sequence[str], labels: NDArray[np.int64], digests: Sequence[str], classes: Sequence[str]
) -> tuple[str, ...]:
    """Identical images under different labels."""
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
    """Splits whose largest class is several times the smallest: overall accuracy then says most about the largest."""
    sentences = []
    for split, rows in indices.items():
        counts = np.bincount(labels[rows], minlength=len(classes))
        few, many = int(counts.argmin()), int(counts.argmax())
        if counts[many] >= _IMBALANCE * counts[few]:
            sentences.append(
                f"Classes are uneven in {_WORDS[split]}: from {plural(int(counts[few]), 'image')} "
                f'("{printable(classes[few])}") to {counts[many]:,} ("{printable(classes[many])}").'
            )
    return tuple(sentences)
