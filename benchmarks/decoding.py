"""Decoding many JPEGs of ordinary size: `cnnsearch` beside a loop written by hand that uses Pillow's draft mode.

    python -m benchmarks.decoding                           100,000 JPEGs of 500×375 to 64×64: 9 GB, minutes
    python -m benchmarks.decoding --images 5000 --rounds 3
    python -m benchmarks.decoding --folder photos           the JPEGs of a folder with a sub-folder per class

The loop has as many threads as there are cores; each reads a file, has libjpeg decode it at the smallest scale that is
large enough, resizes it and writes it to a mapped array. It hashes nothing, so it finds neither copies nor files that
changed, and remembers nothing. Each way runs as a process of its own, in turn, over files that were read before. Ratios
are medians over rounds of the loop's seconds divided by ours. Memory is what a process has beside mapped files.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cnnsearch.data.loading import load
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.spec.data import DataSpec, StratifiedSplit

CLASSES = 10
SCENES = 40
"""Different pictures; each file has bytes of its own."""
WAYS = ("draft", "cnnsearch", "cnnsearch again", "cnnsearch exact")


def main(arguments: list[str] | None = None) -> int:
    """Print seconds, rates, memory and ratios."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--images", type=int, default=100_000)
    made.add_argument("--folder", type=Path, help="of JPEGs that exist, instead of making them")
    made.add_argument("--side", type=int, default=64, help="of the squares, pixels")
    made.add_argument("--rounds", type=int, default=1)
    made.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    made.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    made.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = made.parse_args(arguments)
    if options.way:
        print(json.dumps(measured(options.way, options.folder, options.side, options.cache)))
        return 0
    with tempfile.TemporaryDirectory(prefix="cnnsearch-decoding-") as scratch:
        folder = options.folder or write_jpegs(Path(scratch) / "images", options.images)
        for file in jpegs(folder):
            Path(file).read_bytes()
        seconds: dict[str, list[float]] = {way: [] for way in options.ways}
        for number in range(options.rounds):
            cache = Path(scratch) / f"cache-{number}"
            for way in options.ways:
                found = in_process(way, folder, options.side, cache / ("exact" if way.endswith("exact") else "scaled"))
                seconds[way].append(found["seconds"])
                told = f"{found['seconds']:7.1f} s  {found['images'] / found['seconds']:8,.0f} images/s"
                more = f"{found['cpu']:7.1f} s of CPU time  {found['bytes'] / 1e6:6,.0f} MB"
                print(f"round {number + 1}  {way:<16} {told}  {more}", flush=True)
            shutil.rmtree(cache)
    for way in options.ways[1:]:
        ratio = statistics.median(a / b for a, b in zip(seconds[options.ways[0]], seconds[way], strict=True))
        print(f"{way}: {ratio:.2f} of the rate of {options.ways[0]}")
    print(f"on {detect().cores} cores ({detect().cpu or platform.machine()})")
    return 0


def in_process(way: str, folder: Path, side: int, cache: Path) -> dict[str, float]:
    """Measure a way in a process of its own."""
    asked = ["--way", way, "--folder", str(folder), "--side", str(side), "--cache", str(cache)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.decoding", *asked], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(way: str, folder: Path, side: int, cache: Path) -> dict[str, float]:
    """Decode in this process: seconds, seconds of CPU time, number of images, most bytes beside mapped files."""
    cache.mkdir(parents=True, exist_ok=True)
    peak, ended = [0], threading.Event()
    sampling = threading.Thread(target=_sample, args=(peak, ended))
    sampling.start()
    start, used = time.perf_counter(), time.process_time()
    count = by_hand(folder, side, cache) if way == "draft" else ours(folder, side, cache, way)
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    ended.set()
    sampling.join()
    return {"seconds": seconds, "cpu": cpu, "images": count, "bytes": peak[0]}


def ours(folder: Path, side: int, cache: Path, way: str) -> int:
    """What a sweep does with these files before it plans; "again" finds what it remembers."""
    spec = DataSpec(source=str(folder), split=StratifiedSplit(), jpeg="exact" if way.endswith("exact") else "scaled")
    return len(load(spec, [side], threads=detect().cores, cache=cache)[side].labels)


def by_hand(folder: Path, side: int, cache: Path) -> int:
    """The loop written by hand."""
    files = list(jpegs(folder))
    images = np.lib.format.open_memmap(
        cache / "by-hand.npy", mode="w+", dtype=np.uint8, shape=(len(files), side, side, 3)
    )

    def decode(row: int) -> None:
        with Image.open(files[row]) as image:
            image.draft("RGB", (side, side))
            images[row] = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(detect().cores) as pool:
        for _ in pool.map(decode, range(len(files))):
            pass
    images.flush()
    (cache / "by-hand.npy").unlink()
    return len(files)


def jpegs(folder: Path) -> Iterator[str]:
    """Paths of the files, in order."""
    for inside in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield from sorted(entry.path for entry in os.scandir(inside.path))


def write_jpegs(folder: Path, count: int) -> Path:
    """Write so many JPEGs of 500×375 and about 85 kB, in a folder for each class; each has a comment of its own."""
    scenes = [scene(number) for number in range(SCENES)]
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        label, data, comment = number % CLASSES, scenes[number // CLASSES % SCENES], f"{number:08}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"class{label}" / f"{number:08}.jpg").write_bytes(data[:2] + segment + data[2:])
    return folder


def scene(seed: int, width: int = 500, height: int = 375) -> bytes:
    """A JPEG of noise with the spectrum of photographs, amplitude falling with frequency to the power 1.1."""
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((3, height, width)), axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    colours = np.fft.irfft2(noise / frequency**1.1, s=(height, width), axes=(1, 2))
    pixels = 1.4 * colours.mean(axis=0) + 0.35 * colours  # brightness varies more than colour
    pixels = (pixels - pixels.mean()) / pixels.std() * 50 + 120
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _sample(peak: list[int], ended: threading.Event) -> None:
    """Keep the most memory that this process has had beside mapped files, bytes. Linux only; else 0."""
    status = Path("/proc/self/status")
    while status.exists() and not ended.wait(0.1):
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        peak[0] = max(peak[0], int(lines["RssAnon"].split()[0]) * 1024)


if __name__ == "__main__":
    raise SystemExit(main())
