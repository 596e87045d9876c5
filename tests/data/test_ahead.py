"""Rows that are not in memory are read before they are used, and batches stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cnnsearch.data import ahead
from cnnsearch.data.ahead import ReadAhead
from cnnsearch.systems.files import can_read_ahead

pytestmark = pytest.mark.skipif(not can_read_ahead(), reason="only Linux says what is in memory")


@pytest.fixture
def array(tmp_path: Path) -> NDArray[np.uint8]:
    """600 rows of 4,096 bytes, each of its own value."""
    np.save(tmp_path / "rows.npy", np.arange(600, dtype=np.uint8)[:, None].repeat(4096, axis=1))
    mapped: NDArray[np.uint8] = np.load(tmp_path / "rows.npy", mmap_mode="c")
    return mapped


def batches() -> list[NDArray[np.int64]]:
    order = np.random.default_rng(0).permutation(600).astype(np.int64)
    return np.split(order, range(16, 600, 16))


def read_back(reader: ReadAhead, some: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return list(reader.through(some, lambda batch: batch))


def test_nothing_is_asked_for_where_all_is_in_memory(array: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ReadAhead.of(array)
    assert reader is not None
    array.sum()
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: asked.append(arguments[1]))
    assert not reader.lacks(np.arange(600))
    assert [batch.tolist() for batch in read_back(reader, batches())] == [batch.tolist() for batch in batches()]
    assert asked == []


def test_what_is_not_in_memory_is_asked_for_in_the_order_of_the_disk(
    array: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ReadAhead.of(array)
    assert reader is not None
    monkeypatch.setattr(ahead, "WINDOW_BYTES", 10 * 16 * 4096)
    monkeypatch.setattr(os, "preadv", _not_in_memory)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, start, length, advice: asked.append((start, length)))
    seen = [array[batch, 0].tolist() for batch in read_back(reader, batches())]
    assert seen == [(batch % 256).tolist() for batch in batches()]
    assert {length for _, length in asked} == {4096}
    rows = [(start - array.offset) // 4096 for start, _ in asked]  # type: ignore[attr-defined]
    windows = [rows[start : start + 160] for start in range(0, 600, 160)]
    assert windows == [sorted(np.concatenate(batches()[start : start + 10]).tolist()) for start in range(0, 38, 10)]


def test_at_most_two_windows_are_asked_for_before_the_first_is_used(
    array: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ReadAhead.of(array)
    assert reader is not None
    monkeypatch.setattr(ahead, "WINDOW_BYTES", 16 * 4096)
    monkeypatch.setattr(os, "preadv", _not_in_memory)
    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: asked.append(arguments[1]))
    for number, _ in enumerate(reader.through(batches(), lambda batch: batch), start=1):
        assert 16 * number <= len(asked) + 16
        assert len(asked) <= 16 * (number + 1)


def test_a_real_file_that_the_system_dropped_is_read_again(array: NDArray[np.uint8]) -> None:
    reader = ReadAhead.of(array)
    assert reader is not None
    file = os.open(array.filename, os.O_RDONLY)  # type: ignore[attr-defined]
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    if not reader.lacks(np.arange(600)):
        pytest.skip("this file system keeps its files in memory")
    assert sum(len(batch) for batch in read_back(reader, batches())) == 600
    assert np.array_equal(array[:, 5], np.arange(600, dtype=np.uint8))


def test_arrays_in_memory_need_no_reader() -> None:
    assert ReadAhead.of(np.zeros((3, 4), np.uint8)) is None


def _not_in_memory(*arguments: object) -> int:
    raise BlockingIOError
