"""The embedded images are what their README says, and can be made again."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnsearch.data import fashion_mini, load
from cnnsearch.data.fashion_mini import make
from cnnsearch.spec.data import DataSpec, FillSplit

FOLDER = Path(fashion_mini.__file__).parent
FILE = FOLDER / fashion_mini.FILE
needs_debian = pytest.mark.skipif(not make.DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")


def test_is_small_and_hashes_to_what_the_readme_says() -> None:
    packed = FILE.read_bytes()
    readme = (FOLDER / "README.md").read_text()
    assert len(packed) < 1_000_000
    assert hashlib.sha256(packed).hexdigest() in readme
    assert f"{len(packed):,} bytes" in readme


def test_has_ten_classes_of_170_different_images() -> None:
    images = fashion_mini.images()
    assert images.shape == (10, 170, 28, 28)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(1700, -1), axis=0)) == 1700


def test_class_names_can_be_folder_names() -> None:
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz-") for name in fashion_mini.CLASSES)
    assert len(set(fashion_mini.CLASSES)) == 10


def test_licence_is_there() -> None:
    licence = (FOLDER / "LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "Permission is hereby granted, free of charge" in licence


@needs_debian
def test_making_it_again_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = tmp_path / "again.xz"
    monkeypatch.setattr(sys, "argv", ["make", "--out", str(again)])
    make.main()
    assert again.read_bytes() == FILE.read_bytes()


@needs_debian
def test_fill_50_20_gives_back_the_official_parts(tmp_path: Path) -> None:
    data = load(DataSpec(split=FillSplit(train_per_class=50, val_per_class=20)), [28], cache=tmp_path)[28]
    for split, part, first, count in (("train", "train", 0, 50), ("val", "train", 50, 20), ("test", "t10k", 0, 100)):
        official = make.read_idx(make.DEBIAN / f"{part}-images-idx3-ubyte.gz")
        labels = make.read_idx(make.DEBIAN / f"{part}-labels-idx1-ubyte.gz")
        wanted = np.concatenate([official[labels == label][first : first + count] for label in range(10)])
        rows = data.indices[split]
        assert np.array_equal(data.images[rows], np.repeat(wanted[..., None], 3, axis=-1))
        assert np.array_equal(data.labels[rows], np.repeat(np.arange(10), count))


def test_make_without_the_official_files_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make", "--source", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        make.main()
    assert "apt install dataset-fashion-mnist" in capsys.readouterr().err


def test_read_idx_refuses_other_files(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "x.gz").write_bytes(gzip.compress(b"not idx"))
    with pytest.raises(ValueError, match="not an IDX file"):
        make.read_idx(tmp_path / "x.gz")
