"""Outputs of frozen layers, computed once and shared by all trials on a machine.

They depend on weights, data and preprocessing alone, so they are the same in every epoch of every such trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from cnnsearch.errors import DiskError
from cnnsearch.spec.settings import ResolvedPrecision
from cnnsearch.storage.cache import cache_root
from cnnsearch.storage.checksums import sha256
from cnnsearch.storage.durable import alone_in, common_folder, read_checked, replacing, write_checked
from cnnsearch.systems import locks
from cnnsearch.training.compute.device import autocast
from cnnsearch.training.compute.device_kinds import in_order
from cnnsearch.training.pixels import Pixels

BATCH_SIZE = 64
"""Images whose features are computed in one batch. Fixed, so that the numbers repeat bit for bit."""
ALL = slice(None)
"""Every image: the default of `compute`."""
PARTS = 32
"""Most parts into which the images are divided among the processes that wait for the same features."""


class Examples(Protocol):
    """What training and evaluation read: images (`Pixels`), or the outputs of frozen layers for them (`Features`)."""

    @property
    def numbers(self) -> int:
        """Count of numbers in the inputs of one example."""

    @property
    def labels(self) -> Tensor:
        """[N] int64 label of each example."""

    @property
    def rows(self) -> dict[str, Tensor]:
        """Split name -> [n] int64 rows."""

    @property
    def device(self) -> str:
        """cpu, cuda, xpu or mps."""

    def ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield batches of rows; while one is used, those to come are read from disk if they are not in memory."""

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the examples of a batch.

        Args:
            rows: [B] int64, which examples to take.

        Returns:
            The inputs of the trained layers, each [B, ...]; and the labels, [B] int64.
        """


@dataclass(frozen=True)
class Features:
    """The values that cross the cut of a model (see `models.cut`), for every example."""

    values: tuple[Tensor, ...]
    """Each [N, ...] in the dtype the frozen layers gave. Maps are [N, H, W, C]: most devices take them so."""
    labels: Tensor
    """[N] int64."""
    rows: dict[str, Tensor]
    """Split name -> [n] int64 rows."""

    @property
    def numbers(self) -> int:
        """See Examples.numbers."""
        return sum(value[0].numel() for value in self.values)

    @property
    def device(self) -> str:
        """cpu, cuda, xpu or mps."""
        return self.labels.device.type

    def ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Examples`: features are kept only where they fit into memory."""
        return iter(batches)

    def batch(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """See Examples.batch."""
        taken = (value[rows] for value in self.values)
        return tuple(in_order(v.permute(0, 3, 1, 2)) if v.dim() == 4 else v for v in taken), self.labels[rows]


@torch.no_grad()
def compute(prefix: nn.Module, pixels: Pixels, precision: ResolvedPrecision, part: slice = ALL) -> tuple[Tensor, ...]:
    """Run images through frozen layers, which are put into eval mode.

    Args:
        prefix: the layers: images [B, 3, S, S] -> tuple of tensors, each [B, ...].
        pixels: the images.
        precision: of matrix products and convolutions.
        part: which of the images. It starts at a multiple of BATCH_SIZE, so that the batches, and with them the
            numbers, are the same whether the images are computed in parts or not.

    Returns:
        The outputs for these images, as in `Features.values`.
    """
    prefix.eval()
    parts: list[tuple[Tensor, ...]] = []
    for rows in torch.arange(len(pixels.labels), device=pixels.device)[part].split(BATCH_SIZE):
        (images,), _ = pixels.batch(rows)
        with autocast(pixels.device, precision):
            found = prefix(images)
        parts.append(tuple(v.permute(0, 2, 3, 1).contiguous() if v.dim() == 4 else v for v in found))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def bytes_needed(prefix: nn.Module, pixels: Pixels, precision: ResolvedPrecision) -> int:
    """Return the size of the features of all images, measured on one image."""
    one = Pixels(pixels.images[:1], pixels.labels[:1], {}, pixels.mean, pixels.std)
    return sum(value.nbytes for value in compute(prefix, one, precision)) * len(pixels.labels)


def shared(key: str, make: Callable[[slice], tuple[Tensor, ...]], images: int, device: str) -> tuple[Tensor, ...]:
    """Return the features of a key, which are computed once on this machine and kept in a file.

    All processes that ask while the features are missing share the work. On a CPU every process maps the same file. A
    file that does not match its checksum is made again.

    Args:
        key: names everything that decides the features.
        make: slice of the images -> their features.
        images: number of images.
        device: where the features are wanted.

    Raises:
        DiskError: the features cannot be written.
    """
    try:
        folder = cache_root() / "features"
        file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.pt"
        parts = None
        with alone_in(folder):
            found = _read(file)
            if found is None:
                file.unlink(missing_ok=True)  # from here on, the file exists only once it is complete
                parts = common_folder(folder, f"{file.stem}.parts")
        if parts is not None:
            _make_together(file, parts, make, images)
            found = _read(file)
    except OSError as error:
        raise DiskError(f"outputs of frozen layers cannot be kept: {error}") from None
    if found is None:
        raise DiskError(f"{file} is not what was just written to it")
    return tuple(value.to(device) for value in found)


def _make_together(file: Path, parts: Path, make: Callable[[slice], tuple[Tensor, ...]], images: int) -> None:
    """Compute the parts that no other process is computing, wait for the others, and join all parts in one file.

    Parts that a killed process has finished are used.

    Args:
        file: the file to make, where no other process has made it.
        parts: folder of the parts and their locks, common to all processes.
        make: slice of the images -> their features.
        images: number of images.
    """
    batches = -(-images // BATCH_SIZE)
    count = max(1, min(PARTS, batches))
    bounds = [BATCH_SIZE * (batches * number // count) for number in range(count + 1)]
    for waits in (False, True):  # the second time, wait for begun parts: whoever began one may have died
        for number in range(count):
            part = parts / f"{number}.pt"
            with _held(parts / f"{number}.lock", waits) as is_ours:
                if is_ours and not file.exists() and _read(part) is None:
                    some = make(slice(bounds[number], bounds[number + 1]))
                    _write(part, tuple(value.cpu().contiguous() for value in some), synced=False)
    with alone_in(file.parent):
        if not file.exists():
            made = [found for number in range(count) if (found := _read(parts / f"{number}.pt")) is not None]
            if len(made) < count:
                raise DiskError(f"{parts} is not what was just written to it")
            _write(file, tuple(torch.cat(values) for values in zip(*made, strict=True)))
            for number in range(count):  # wait for processes that began to look at a part before the file was there
                with _held(parts / f"{number}.lock", waits=True):
                    pass
        shutil.rmtree(parts, ignore_errors=True)


@contextlib.contextmanager
def _held(lock: Path, waits: bool) -> Iterator[bool]:
    """Hold a lock file during the block; yield whether it is held.

    It is not held if its folder is gone, or if another process holds it and `waits` is False.
    """
    try:
        opened = lock.open("w")
    except FileNotFoundError:
        yield False
        return
    with opened:
        try:
            locks.lock(opened.fileno(), waits=waits)
        except BlockingIOError:
            yield False
            return
        yield True


_CHECKED: dict[Path, tuple[int, int, int]] = {}
"""Files that this process has compared with their checksum -> what they were then: inode, size, modification time."""


def _write(file: Path, values: tuple[Tensor, ...], *, synced: bool = True) -> None:
    """Write features to a file; their checksum is written beside it before the file is put in its place."""
    with replacing(file, synced=synced) as temporary:
        try:
            with temporary.open("wb") as opened:  # by its name, torch would refuse the file
                torch.save(list(values), opened)
        except RuntimeError as error:  # torch raises this for a full disk
            raise DiskError(f"{file} cannot be written: {error}") from None
        write_checked(file.with_suffix(".json"), {"sha256": sha256(temporary)}, synced=synced)


def _read(file: Path) -> tuple[Tensor, ...] | None:
    """Map the features of a file; None if there is no such file, or it does not match its checksum."""
    try:
        facts = file.stat()
        state = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if _CHECKED.get(file) != state:
            note = read_checked(file.with_suffix(".json"))
            if note is None or note["sha256"] != sha256(file):
                return None
            _CHECKED[file] = state
        return tuple(torch.load(file, mmap=True, weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError):
        return None
