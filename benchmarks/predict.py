"""Classifying many small JPEGs: `cnnsearch predict` beside a loop written by hand, with the same network.

    python -m benchmarks.predict                                10,000 JPEGs of 64×64, three rounds: minutes
    python -m benchmarks.predict --images 2000 --rounds 2

The loop has Pillow decode in threads, ahead of a network that computes batches of 256 in channels_last on all cores, in
the precision of the trial. Both run in this process, in turn. The ratio is that of their rates, the median over rounds;
above 1, ours is faster. On a machine that others use too, the ratio of CPU times says more. Their answers are compared.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import cnnsearch
from benchmarks.images import changed
from cnnsearch.data import fashion_mini
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.training.compute.device import autocast
from cnnsearch.use.choose import choose
from cnnsearch.use.classifier import classifier
from cnnsearch.use.listing import listed
from cnnsearch.use.predict import predict

BATCH = 256
ALIKE = 0.99
"""Share of answers that must be the same. Not all are in bf16: other batches and threads add up in another order."""


def main(arguments: list[str] | None = None) -> int:
    """Print seconds, rates and their ratio; 1 where more than one of a hundred answers differs."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--images", type=int, default=10_000)
    made.add_argument("--side", type=int, default=64, help="of the JPEGs and of the network's input, pixels")
    made.add_argument("--model", default="residual")
    made.add_argument("--width", type=float, default=0.125, help="of the network")
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cnnsearch-predict-") as scratch:
        folder = Path(scratch)
        files = write_jpegs(folder / "images", options.images, options.side)
        results = train(folder, options.model, options.width, options.side)
        ways: dict[str, Callable[[], list[str]]] = {"loop": loop(results, files), "cnnsearch": ours(results, files)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        answers: dict[str, list[str]] = {}
        for way in ways.values():  # once for what is done once: threads started, kernels chosen, files in memory
            way()
        for number in range(options.rounds):
            for name, way in ways.items():
                start, used = time.perf_counter(), time.process_time()
                answers[name] = way()
                seconds[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
                rate = len(files) / seconds[name][-1]
                told = f"{seconds[name][-1]:6.2f} s  {rate:8,.0f} images/s  {cpu[name][-1]:6.2f} s of CPU time"
                print(f"round {number + 1}  {name:<10} {told}", flush=True)
    ratio, of_cpu = (
        statistics.median(a / b for a, b in zip(of["loop"], of["cnnsearch"], strict=True)) for of in (seconds, cpu)
    )
    same = float(np.mean([a == b for a, b in zip(answers["loop"], answers["cnnsearch"], strict=True)]))
    machine = f"{detect().cores} cores ({detect().cpu or platform.machine()})"
    print(f"ratio {ratio:.2f} ({of_cpu:.2f} by CPU time) on {machine}; {same:.2%} of answers alike")
    return int(same < ALIKE)


def write_jpegs(folder: Path, count: int, side: int) -> list[Path]:
    """Write so many different JPEGs, in folders of 1,000."""
    images = fashion_mini.images()
    files = []
    for number in range(count):
        label, row = number % len(images), number // len(images) % images.shape[1]
        picture = Image.fromarray(changed(images[label, row], seed=(label, row, number))).convert("RGB")
        file = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.resize((side, side), Image.Resampling.BILINEAR).save(file, quality=90)
        files.append(file)
    return files


def train(folder: Path, model: str, width: float, side: int) -> Path:
    """Run a sweep of one trial and one epoch; returns its results."""
    sweep = cnnsearch.load_sweep(
        "part1",
        values=[
            f"data.image_size={side}",
            "data.split={method: fill, train_per_class: 20, val_per_class: 5}",
            f"stages=[{{name: one, space: {{model: {model}, width: {width}, epochs: 1}}}}]",
        ],
    )
    cnnsearch.run(sweep, folder / "results", serial=True)
    return folder / "results" / sweep.name


def ours(results: Path, files: list[Path]) -> Callable[[], list[str]]:
    """What `cnnsearch predict` does with these files."""
    found = classifier(choose(results))
    items = listed(files, found.classes).items
    return lambda: predict(found, items)["predicted"].tolist()


def loop(results: Path, files: list[Path]) -> Callable[[], list[str]]:
    """The loop written by hand, over the same network in the same precision."""
    model = cnnsearch.load_model(results)
    network = model.network.to(memory_format=torch.channels_last)
    of = classifier(choose(results)).network
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (of.inputs.mean, of.inputs.std))
    precision = of.choices.precision
    cores, side = detect().cores, model.image_size

    def decode(batch: list[Path]) -> NDArray[np.uint8]:
        images = np.empty((len(batch), side, side, 3), np.uint8)
        for row, file in enumerate(batch):
            with Image.open(file) as image:
                images[row] = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        return images

    @torch.inference_mode()
    def classify() -> list[str]:
        before, found = torch.get_num_threads(), []
        torch.set_num_threads(cores)
        with ThreadPoolExecutor(cores) as pool:
            for images in pool.map(decode, [files[start : start + BATCH] for start in range(0, len(files), BATCH)]):
                inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float().sub_(mean).div_(std)
                with autocast("cpu", precision):
                    found += network(inputs).float().softmax(1).argmax(1).tolist()
        torch.set_num_threads(before)
        return [model.classes[label] for label in found]

    return classify


if __name__ == "__main__":
    raise SystemExit(main())
