"""Image folders to train on, the same everywhere: fashion-mini's images, repeated with small changes where needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data import SPLITS, fashion_mini

ROWS = {"train": range(50), "val": range(50, 70), "test": range(70, 170)}
"""Rows of each class that a split is made from: no image, however changed, is in two splits."""


def write_folder(folder: Path, per_class: dict[str, int], image_size: int) -> None:
    """Write `folder/SPLIT/CLASS/NUMBER.png`.

    Args:
        per_class: split -> images of each class; beyond the images there are, changed copies.
        image_size: side of the files' images, pixels: what trials take, so that resizing costs nobody anything.
    """
    images = fashion_mini.images()
    for split in SPLITS:
        rows = ROWS[split]
        for label, name in enumerate(fashion_mini.CLASSES):
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(per_class[split]):
                copy, row = divmod(number, len(rows))
                image = images[label, rows[row]]
                if copy:
                    image = changed(image, seed=(label, rows[row], copy))
                picture = Image.fromarray(image).convert("RGB")
                picture.resize((image_size, image_size), Image.Resampling.BILINEAR).save(target / f"{number:05}.png")


def changed(image: NDArray[np.uint8], seed: tuple[int, ...]) -> NDArray[np.uint8]:
    """An image shifted by up to two pixels, mirrored half of the time, and brighter or darker by up to a tenth.

    Args:
        image: [H, W] or [H, W, C].
        seed: decides the change.
    """
    rng = np.random.default_rng(seed)
    shifted = np.roll(image, rng.integers(-2, 3, size=2), axis=(0, 1))
    mirrored = shifted[:, ::-1] if rng.random() < 0.5 else shifted
    brighter: NDArray[np.uint8] = np.clip(mirrored * rng.uniform(0.9, 1.1), 0, 255).astype(np.uint8)
    return brighter
