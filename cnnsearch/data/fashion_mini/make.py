"""Make images.npy.xz from the official Fashion-MNIST files.

    python -m cnnsearch.data.fashion_mini.make [--source DIR] [--out FILE]

Of each class, the first 70 images of the official training set and the first 100 of the official test set, in the
order of those files. Nothing is drawn at random, so the same files give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import lzma
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnsearch.data.fashion_mini import CLASSES, FILE, TEST_PER_CLASS, TRAIN_PER_CLASS, VAL_PER_CLASS

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the official files."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes, in its own shape.

    Format: two zero bytes, the type (8 is uint8), the number of dimensions, each dimension as a big-endian uint32,
    the values (http://yann.lecun.com/exdb/mnist/).

    Raises:
        ValueError: the file holds something else.
    """
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def choose(source: Path) -> NDArray[np.uint8]:
    """Choose the images, uint8 [10, 170, 28, 28]: of each class, first training, then validation, then test."""
    chosen = []
    for part, count in (("train", TRAIN_PER_CLASS + VAL_PER_CLASS), ("t10k", TEST_PER_CLASS)):
        images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
        chosen.append(np.stack([images[labels == label][:count] for label in range(len(CLASSES))]))
    return np.concatenate(chosen, axis=1)


def pack(images: NDArray[np.uint8]) -> bytes:
    """Return the bytes of images.npy.xz."""
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    return lzma.compress(buffer.getvalue(), check=lzma.CHECK_CRC64, preset=6)


def main() -> None:
    """Write the file and print its size and SHA-256."""
    parser = argparse.ArgumentParser(prog="python -m cnnsearch.data.fashion_mini.make")
    parser.add_argument("--source", type=Path, default=DEBIAN, help="folder of the four official .gz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(FILE))
    given = parser.parse_args()
    if not given.source.is_dir():
        parser.error(f"no such folder: {given.source} (Debian: apt install dataset-fashion-mnist)")
    packed = pack(choose(given.source))
    given.out.write_bytes(packed)
    print(f"{given.out}: {len(packed):,} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
