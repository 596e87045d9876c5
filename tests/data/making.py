"""Makes real image files for the tests."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(number: int, side: int = 12) -> Image.Image:
    """A small RGB image that no other number gives."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fill_folder(root: Path, counts: Mapping[str, int], first: int = 0) -> Path:
    """`counts` PNGs in each sub-folder (which may be nested: "train/cat"), all different."""
    number = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for row in range(count):
            picture(number).save(root / name / f"{row:03}.png")
            number += 1
    return root


def settle() -> None:
    """Wait until files are old enough to be remembered by an index."""
    time.sleep(0.05)


def photo(number: int, width: int = 160, height: int = 120) -> Image.Image:
    """An image with the statistics of a photograph: detail at all scales, noise, and some things with edges."""
    rng = np.random.default_rng(number)
    up, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    strength = 1 / np.maximum(np.hypot(up, across), 1 / width) ** 1.2
    waves = np.fft.irfft2(strength * np.exp(2j * np.pi * rng.random(strength.shape)), s=(height, width))
    waves = (waves - waves.mean()) / waves.std()
    pixels = np.stack([waves * rng.uniform(20, 45) + rng.uniform(80, 170) for _ in range(3)], axis=-1)
    pixels += rng.normal(0, 3, pixels.shape)
    y, x = np.mgrid[:height, :width]
    for _ in range(rng.integers(2, 6)):
        centre, radius = rng.uniform(0, (height, width)), rng.uniform(8, 45, 2)
        inside = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2 < 1
        pixels[inside] = 0.3 * pixels[inside] + 0.7 * rng.uniform(0, 255, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG."""
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality))).convert("RGB")


def named(folder: Path) -> list[tuple[str, str]]:
    """(path below the folder, class) of each image in a folder with a sub-folder per class."""
    files = sorted(folder.glob("*/*.*"))
    return [(str(file.relative_to(folder)), file.parent.name) for file in files]


def write_table(file: Path, rows: Iterable[Iterable[object]], *columns: str, between: str = ",") -> Path:
    """A table of text with these columns; `path` and `label` if none are given."""
    lines = [between.join(columns or ("path", "label")), *(between.join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def write_shard(
    file: Path, rows: Iterable[tuple[bytes | None, str | None, Any]], names: Sequence[str] = (), group: int = 4
) -> Path:
    """A Parquet file as Hugging Face's data sets write it: (bytes, path, label) of each image, `group` at a time."""
    images, labels = [], []
    for content, path, label in rows:
        images.append({"bytes": content, "path": path})
        labels.append(label)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(images, kind), "label": labels})
    if names:
        label = {"names": list(names), "_type": "ClassLabel"}
        noted = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
    pq.write_table(table, file, row_group_size=group)
    return file


def write_tar(file: Path, members: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    """A .tar archive of these files."""
    with tarfile.open(file, "w", format=kind) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def as_members(folder: Path) -> dict[str, bytes]:
    """The images of a folder for `write_tar`, each with its label beside it."""
    found = {}
    for path, label in named(folder):
        found[path] = (folder / path).read_bytes()
        found[path.rpartition(".")[0] + ".cls"] = label.encode()
    return found


def as_rows(folder: Path, *, number: bool = True) -> list[tuple[bytes | None, str | None, Any]]:
    """The images of a folder for `write_shard`, with the last part of their paths; labels are numbers or names."""
    classes = sorted({label for _, label in named(folder)})
    return [
        ((folder / path).read_bytes(), Path(path).name, classes.index(label) if number else label)
        for path, label in named(folder)
    ]
