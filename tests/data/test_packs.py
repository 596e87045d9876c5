"""Packs are found again, never when harmed, and a draft leaves nothing behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnsearch.data import packs as packs_module
from cnnsearch.data.packs import Packs
from cnnsearch.errors import DataError

DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


def keep(packs: Packs, sizes: tuple[int, ...] = (4, 6)) -> None:
    draft = packs.draft(DIGESTS, sizes)
    for row in range(3):
        draft.write(row, DIGESTS[row], [np.full((size, size, 3), row * 10 + size, np.uint8) for size in sizes])
    packs.keep(draft)


def test_a_kept_pack_is_found_with_its_pixels(tmp_path: Path) -> None:
    packs = Packs(tmp_path / "images")
    assert not packs.holds(DIGESTS, 4)
    keep(packs)
    assert packs.holds(DIGESTS, 4)
    assert packs.holds(DIGESTS, 6)
    pixels = np.load(packs.path(DIGESTS, 6))
    assert pixels.shape == (3, 6, 6, 3)
    assert pixels[:, 0, 0, 0].tolist() == [6, 16, 26]
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".npy", ".json"}


def test_other_contents_order_size_or_decoder_are_other_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = Packs(tmp_path)
    paths = {packs.path(DIGESTS, 4), packs.path(DIGESTS[::-1], 4), packs.path(DIGESTS[:2], 4), packs.path(DIGESTS, 6)}
    paths.add(Packs(tmp_path, "bicubic").path(DIGESTS, 4))
    monkeypatch.setattr(packs_module, "RECIPE", "another")
    assert len({*paths, packs.path(DIGESTS, 4)}) == 6


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _wrong_shape(path: Path) -> None:
    np.save(path, np.zeros((3, 4, 4, 1), np.uint8))


def _pickle(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize(
    "harm",
    [
        _flip,
        _wrong_shape,
        _pickle,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("null"),
    ],
)
def test_a_harmed_pack_is_not_held_and_can_be_made_again(harm: Callable[[Path], object], tmp_path: Path) -> None:
    packs = Packs(tmp_path)
    keep(packs)
    harm(packs.path(DIGESTS, 4))
    assert not packs.holds(DIGESTS, 4)
    assert packs.holds(DIGESTS, 6)
    keep(packs)
    assert packs.holds(DIGESTS, 4)


def test_a_draft_gives_back_what_was_written_and_only_that(tmp_path: Path) -> None:
    draft = Packs(tmp_path).draft(["a", "b", "a"], [4, 6])
    square = [np.full((size, size, 3), 9, np.uint8) for size in (4, 6)]
    draft.write(0, "a", square)
    again = draft.read("a", [6])
    assert again is not None
    assert np.array_equal(again[0], square[1])
    assert draft.read("b", [6]) is None
    assert draft.read("a", [5]) is None
    draft.discard()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device.*\n.*CNNSEARCH_CACHE"):
        Packs(tmp_path).draft(DIGESTS, [4])
    assert os.listdir(tmp_path) == []


def test_a_file_system_that_cannot_reserve_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    keep(Packs(tmp_path))
    assert Packs(tmp_path).holds(DIGESTS, 4)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be kept in"):
        Packs(tmp_path / "file" / "images")
