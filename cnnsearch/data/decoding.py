"""Decodes many images at once into a draft."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cnnsearch.data.images import BadImageError
from cnnsearch.data.index import Index, UnreadableError
from cnnsearch.data.listing import Content
from cnnsearch.data.packs import Draft

_MAX_THREADS = 16
"""Each holds one decoded image, which may be large."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def hash_all(contents: Sequence[Content], index: Index) -> list[str | BadImageError]:
    """SHA-256 of each content, or why it cannot be used: unreadable now, or known to be no image."""

    def one(content: Content) -> str | BadImageError:
        try:
            digest = content.digest(index.digest)
        except BadImageError as error:
            return error
        reason = index.why_bad(digest)
        return digest if reason is None else BadImageError(reason)

    return list(_in_threads(one, contents))


def decode_all(
    contents: Sequence[Content],
    draft: Draft,
    index: Index,
    earlier: Draft | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, BadImageError]:
    """Fill a draft: every content once, for all of its sizes.

    Args:
        contents: [N] what to decode, in the order of the draft's rows.
        draft: what is filled.
        index: is told which contents are no images.
        earlier: a draft that already has some of these contents.
        on_progress: called in this thread with (done, total) after each image.

    Returns:
        Row -> why it stayed empty.
    """

    def one(row: int) -> BadImageError | None:
        digest = draft.digests[row]
        try:
            done = earlier.read(digest, draft.sizes) if earlier is not None else None
            if done is None:
                done = contents[row].squares(draft.sizes, digest, draft.interpolation)
            draft.write(row, done)
        except UnreadableError as error:
            return error
        except BadImageError as error:
            index.remember_bad(digest, str(error))
            return error
        return None

    failed = {}
    for row, error in enumerate(_in_threads(one, range(len(contents)))):
        if error is not None:
            failed[row] = error
        if on_progress is not None:
            on_progress(row + 1, len(contents))
    return failed


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items. Pillow and hashlib let go of the interpreter while they work."""
    executor = ThreadPoolExecutor(min(_cores(), _MAX_THREADS))
    try:
        yield from executor.map(work, items)
    finally:  # also where the caller was interrupted: what has not begun never does
        executor.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
