"""Training on images that are larger than memory, beside images that fit. Linux, as root: it limits memory by a cgroup.

    python -m benchmarks.beyond_memory                      3 GB of 64×64 images in 1.2 GB of memory
    python -m benchmarks.beyond_memory --times 4 --memory-mb 900

An epoch of a small network takes so many images, drawn at random from all there are, in a process that may use so much
memory, its share of the system's file cache included:

    fits      from images that fill a quarter of it
    ahead     from images that are several times as large, as `cnnsearch` reads them
    plain     the same without reading ahead; ended after ten times as long as `ahead`

Each runs in a process of its own after the system has dropped its cache; `fits` reads its images once before.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIDE = 64
CLASSES = 10


def main(arguments: list[str] | None = None) -> int:
    """Print the seconds of an epoch in each way, and their ratios to `fits`."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--memory-mb", type=int, default=1200)
    made.add_argument("--times", type=float, default=2.5, help="how many times the memory the larger images take")
    made.add_argument("--images", type=int, default=20_000, help="of an epoch")
    made.add_argument("--rounds", type=int, default=1)
    made.add_argument("--way", choices=("fits", "ahead", "plain"), help=argparse.SUPPRESS)
    made.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    if options.way:
        print(epoch_seconds(options.way, options.file, options.images))
        return 0
    row = SIDE * SIDE * 3
    memory = options.memory_mb * 1024**2
    with tempfile.TemporaryDirectory(prefix="cnnsearch-beyond-", dir=".") as scratch, limited(memory) as group:
        small = write(Path(scratch) / "small.npy", memory // 4 // row)
        large = write(Path(scratch) / "large.npy", int(options.times * memory) // row)
        for number in range(options.rounds):
            seconds: dict[str, float] = {}
            for way, file in (("fits", small), ("ahead", large), ("plain", large)):
                longest = 10 * seconds["ahead"] + 60 if way == "plain" else None
                found = in_group(group, way, file, options.images, longest)
                seconds[way] = found or float("inf")
                told = f"{found:7.1f} s" if found else f"ended after {longest:.0f} s"
                ratio = f"{seconds[way] / seconds['fits']:.2f} times as long as fits" if found else ""
                print(f"round {number + 1}  {way:<6} {told}  {ratio}", flush=True)
    return 0


def write(file: Path, count: int) -> Path:
    """Write so many images of noise; every thousandth is the same."""
    block = np.random.default_rng(0).integers(0, 255, (1000, SIDE, SIDE, 3), dtype=np.uint8)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, SIDE, SIDE, 3))
    for start in range(0, count, len(block)):
        images[start : start + len(block)] = block[: count - start]
    images.flush()
    return file


def epoch_seconds(way: str, file: Path, count: int) -> float:
    """Train one epoch in this process; seconds of the epoch, without imports."""
    import torch

    from cnnsearch.data.dataset import Dataset
    from cnnsearch.spec.settings import Settings
    from cnnsearch.training.models.build import build
    from cnnsearch.training.pixels import Pixels
    from cnnsearch.training.train import TrainingState, train

    total = len(np.load(file, mmap_mode="r"))
    rows = np.sort(np.random.default_rng(1).choice(total, min(count, total), replace=False)).astype(np.int64)
    indices = {"train": rows, "val": rows[:100], "test": rows[:100]}
    labels = np.arange(total, dtype=np.int64) % CLASSES
    classes = tuple(map(str, range(CLASSES)))
    dataset = Dataset("noise", SIDE, classes, ("",) * total, labels, indices, file, "0" * 16)
    settings = Settings(model="plain", width=0.05, epochs=1, batch_size=64, lr=1e-4)
    torch.set_num_threads(1)
    pixels = Pixels.of(dataset, "cpu", ((127.0,) * 3, (70.0,) * 3))
    if way == "plain":
        object.__setattr__(pixels, "reader", None)
    model = build(settings, CLASSES)
    if way == "fits":
        dataset.images.max()
    start = time.perf_counter()
    steps = train(TrainingState.start(model, settings), pixels, settings, precision="fp32")
    for _ in itertools.islice(steps, 1):
        pass
    return (time.perf_counter() - start) * count / len(rows)


def in_group(group: Path, way: str, file: Path, images: int, longest: float | None) -> float | None:
    """Run a way in a cgroup, after the system has dropped its cache; None where it takes longer than `longest`."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    command = [sys.executable, "-m", "benchmarks.beyond_memory", "--way", way, "--file", str(file)]
    with subprocess.Popen(
        ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command, "--images", str(images)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            return float(process.communicate(timeout=longest)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            return None


@contextlib.contextmanager
def limited(memory: int) -> Iterator[Path]:
    """A cgroup whose processes have so much memory; removed in the end."""
    old = Path("/sys/fs/cgroup/memory")
    parent, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = parent / f"cnnsearch-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text(str(memory))
        yield group
    finally:
        group.rmdir()


if __name__ == "__main__":
    raise SystemExit(main())
