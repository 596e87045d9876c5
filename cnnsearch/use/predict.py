"""Classify image files: decoded in threads, predicted in chunks, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnsearch.data.images import BadImageError
from cnnsearch.data.packs import in_threads
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.use.classifier import Classifier
from cnnsearch.use.listing import Item

COLUMNS = ("path", "predicted", "confidence", "label", "error")
"""Columns of the answer; with `top`, class_1, confidence_1 and so on follow."""
CHUNK = 128
"""Most images that a thread decodes before it predicts them."""
CHUNK_BYTES = 2**25
"""Most bytes of the decoded images of a chunk."""
LEAST_CHUNK = 8


class _Answers(NamedTuple):
    """Answers for a chunk: rows that could be read, their best classes and probabilities; and why others could not."""

    rows: NDArray[np.int64]
    best: NDArray[np.int64]
    """[rows, K]."""
    confidence: NDArray[np.float32]
    """[rows, K]."""
    errors: dict[int, str]


def predict(
    classifier: Classifier,
    items: Sequence[Item],
    top: int | None = None,
    listen: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Classify images.

    Args:
        classifier: what to classify them with.
        items: the images, from `listed`.
        top: how many of the best classes, with their confidences, get columns of their own; None: no such columns.
        listen: called in this thread with (images done, images in all) from time to time.

    Returns:
        One row for each image, in the order of `items`; columns of `COLUMNS`. Confidences are probabilities, 0 to 1. An
        image that cannot be read has an error, and no prediction.
    """
    cores, kept = detect().cores, top or 1
    size = _chunk_size(classifier.image_size, len(items), cores)
    best = np.full((len(items), kept), -1, np.int64)
    confidence = np.full((len(items), kept), np.nan, np.float32)
    errors: dict[int, str] = {}
    with classifier.ready():
        chunks = (range(start, min(start + size, len(items))) for start in range(0, len(items), size))
        done = 0
        for found in in_threads(
            lambda rows: _answers(classifier, items, rows, kept), chunks, cores, classifier.begin_thread
        ):
            best[found.rows], confidence[found.rows] = found.best, found.confidence
            errors |= found.errors
            done += len(found.rows) + len(found.errors)
            listen(done, len(items))
    return _frame(classifier.classes, items, best, confidence, errors, top)


def _chunk_size(side: int, images: int, cores: int) -> int:
    """How many images a thread takes at a time: few enough for all threads to have some, and for memory."""
    most = min(CHUNK, CHUNK_BYTES // (3 * side**2), -(-images // cores))
    return max(most, LEAST_CHUNK)


def _answers(classifier: Classifier, items: Sequence[Item], rows: Sequence[int], kept: int) -> _Answers:
    size = classifier.image_size
    images = np.empty((len(rows), size, size, 3), np.uint8)
    good: list[int] = []
    errors: dict[int, str] = {}
    for row in rows:
        item = items[row]
        try:
            if item.problem is not None:
                raise BadImageError(item.problem)
            images[len(good)] = classifier.square(item.path if item.content is None else item.content.read())
        except BadImageError as error:
            errors[row] = str(error)
        else:
            good.append(row)
    if not good:
        nothing = np.zeros((0, kept))
        return _Answers(np.zeros(0, np.int64), nothing.astype(np.int64), nothing.astype(np.float32), errors)
    probabilities = classifier.probabilities(images[: len(good)])
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :kept]
    return _Answers(np.array(good), best, np.take_along_axis(probabilities, best, axis=1), errors)


def _frame(
    classes: Sequence[str],
    items: Sequence[Item],
    best: NDArray[np.int64],
    confidence: NDArray[np.float32],
    errors: dict[int, str],
    top: int | None,
) -> pd.DataFrame:
    names = np.array([*classes, None], dtype=object)  # −1, where there is no prediction, is the last
    columns = {
        "path": _words(item.shown for item in items),
        "predicted": _words(names[best[:, 0]]),
        "confidence": pd.Series(confidence[:, 0]),
        "label": _words(item.label for item in items),
        "error": _words(errors.get(row) for row in range(len(items))),
    }
    for place in range(top or 0):
        columns[f"class_{place + 1}"] = _words(names[best[:, place]])
        columns[f"confidence_{place + 1}"] = pd.Series(confidence[:, place])
    return pd.DataFrame(columns)


def _words(values: Iterable[str | None]) -> pd.Series:
    return pd.Series(list(values), dtype=object)  # as objects, so that None stays None
