"""N, the notebook way, against this project on the same work; ratios, and the share of the machine each one uses.

    python -m benchmarks.notebook                          part 1's grid at 32×32, a quarter of the width, 3 epochs
    python -m benchmarks.notebook --set train.width=1.0    at full width: about half an hour on two cores with AMX

Both train the sweep's first stage on the same images, split, seeds and number of epochs, in turn, each as a process
of its own timed from outside. N is what a careful student writes in a notebook: nested loops, a `Dataset` that decodes
and resizes every image every epoch through a `DataLoader`, fp32, `.item()` at every step, all cores for one model at a
time. The limit is the forward and backward multiplications of all training steps and evaluations over the rate of the
faster of this machine's bf16 and fp32 matrix products, on all cores, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from cnnsearch import data as images
from cnnsearch.data.pictures import png
from cnnsearch.hardware import detect
from cnnsearch.models.build import build
from cnnsearch.plan import make_plan
from cnnsearch.spec import Sweep
from cnnsearch.sweepfile import from_yaml, load_sweep, to_yaml
from cnnsearch.words import duration

DEFAULTS = ("data.image_size=32", "train.width=0.25", "train.epochs=3", "run.dashboard=false")


def main() -> None:
    """Run both ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the sweep")
    parser.add_argument("--rounds", type=int, default=2, help="times each way runs, in turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--notebook", type=Path, nargs=2, metavar=("SWEEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.notebook:
        run_like_a_notebook(*arguments.notebook)
        return

    sweep = load_sweep("part1", values=[*DEFAULTS, *arguments.set])
    sweep = sweep.model_copy(update={"stages": sweep.stages[:1]})
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        folder = Path(scratch)
        (folder / "sweep.yaml").write_text(to_yaml(sweep), encoding="utf-8")
        write_folder(sweep, folder / "images")
        seconds: dict[str, list[float]] = {"notebook": [], "cnnsearch": []}
        warm_up(folder)
        for _ in range(arguments.rounds):
            seconds["notebook"].append(timed(notebook_command(folder)))
            seconds["cnnsearch"].append(timed(sweep_command(folder)))
            shutil.rmtree(folder / "results")
    figures = summarise(sweep, seconds)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def notebook_command(folder: Path) -> list[str]:
    """N as a command."""
    return [sys.executable, __file__, "--notebook", str(folder / "sweep.yaml"), str(folder / "images")]


def sweep_command(folder: Path) -> list[str]:
    """This project as a command."""
    command = [sys.executable, "-m", "cnnsearch.sweep", str(folder / "sweep.yaml")]
    return [*command, "--data", str(folder / "images"), "--out", str(folder / "results")]


def warm_up(folder: Path) -> None:
    """Decode and time steps once, as any second sweep on a machine finds it."""
    subprocess.run([*sweep_command(folder), "--dry-run"], check=True, stdout=subprocess.DEVNULL)


def timed(command: list[str]) -> float:
    """Seconds of a whole process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def write_folder(sweep: Sweep, folder: Path) -> None:
    """The sweep's images as a folder of PNG files, so that both ways read files."""
    dataset = images.load(sweep.data, [sweep.data.image_size])[sweep.data.image_size]
    for split in images.SPLITS:
        for row in dataset.indices[split]:
            file = folder / split / dataset.classes[dataset.labels[row]] / Path(dataset.names[row]).name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(dataset, int(row)))


class ImageFolder(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Opens, decodes and resizes an image whenever it is asked for."""

    def __init__(self, folder: Path, image_size: int) -> None:
        classes = sorted(path.name for path in folder.iterdir())
        self.files = [(f, label) for label, name in enumerate(classes) for f in sorted((folder / name).iterdir())]
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file, label = self.files[index]
        image = Image.open(file).convert("RGB").resize((self.image_size, self.image_size))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return pixels.view(self.image_size, self.image_size, 3).permute(2, 0, 1).float() / 127.5 - 1, label


def run_like_a_notebook(sweep_file: Path, folder: Path) -> None:
    """The grid as nested loops; the best epoch of each model is kept and tested at the end."""
    sweep = from_yaml(sweep_file.read_text(encoding="utf-8"), str(sweep_file))
    size = sweep.data.image_size
    train_set, val_set, test_set = (ImageFolder(folder / split, size) for split in ("train", "val", "test"))
    classes = len(list((folder / "train").iterdir()))
    for trial in make_plan(sweep, "0" * 16, {}).trials.values():
        settings = trial.settings
        torch.manual_seed(settings.seed)
        model = build(settings, classes)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
        best_accuracy, best_weights = -1.0, {}
        for epoch in range(settings.epochs):
            model.train()
            total = 0.0
            for pixels, labels in DataLoader(train_set, settings.batch_size, shuffle=True):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(pixels), labels)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(labels)
            accuracy = test(model, DataLoader(val_set, settings.batch_size))
            if accuracy > best_accuracy:
                best_accuracy = accuracy
                best_weights = {name: value.clone() for name, value in model.state_dict().items()}
            print(epoch, total / len(train_set), accuracy)
        model.load_state_dict(best_weights)
        print(settings, test(model, DataLoader(test_set, settings.batch_size)))


@torch.no_grad()
def test(model: nn.Module, loader: Any) -> float:
    """Accuracy over a loader."""
    model.eval()
    correct = seen = 0
    for pixels, labels in loader:
        correct += (model(pixels).argmax(1) == labels).sum().item()
        seen += len(labels)
    return correct / seen


def flops(sweep: Sweep) -> float:
    """Floating-point operations of all steps and evaluations of the sweep's first stage, two a multiply-add."""
    dataset = images.load(sweep.data, [sweep.data.image_size])[sweep.data.image_size]
    n = {split: len(dataset.indices[split]) for split in images.SPLITS}
    total = 0.0
    for trial in make_plan(sweep, "0" * 16, {}).trials.values():
        settings = trial.settings
        with torch.device("meta"):
            model = build(settings, len(dataset.classes))
            pixels = torch.empty(2, 3, settings.image_size, settings.image_size)
        with FlopCounterMode(display=False) as counter:
            forward = model(pixels)
            evaluated = counter.get_total_flops() / 2
            forward.sum().backward()
        trained = counter.get_total_flops() / 2
        total += settings.epochs * (n["train"] * trained + n["val"] * evaluated) + (n["val"] + n["test"]) * evaluated
    return total


def matmul_rate() -> float:
    """Floating-point operations a second of the best of a few square products, on all cores."""
    best = 0.0
    for dtype in (torch.bfloat16, torch.float32):
        for n in (1024, 2048, 4096):
            a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
            for _ in range(4):
                start = time.perf_counter()
                a @ b
                best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def summarise(sweep: Sweep, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, ratio and shares."""
    hardware = detect()
    work, rate = flops(sweep), matmul_rate()
    ours = statistics.median(seconds["cnnsearch"])
    return {
        "hardware": hardware.key,
        "work": f"{len(make_plan(sweep, '0' * 16, {}).trials)} trials, {sweep.train.epochs} epochs, "
        f"{sweep.data.image_size}×{sweep.data.image_size}, width {sweep.train.width:g}",
        "tflop": work / 1e12,
        "limit_seconds": work / rate,
        "matmul_gflops": rate / 1e9,
        "rows": {
            name: {
                "median_seconds": statistics.median(runs),
                "min_seconds": min(runs),
                "max_seconds": max(runs),
                "times_as_long_as_cnnsearch": statistics.median(runs) / ours,
                "share_of_limit": work / rate / statistics.median(runs),
            }
            for name, runs in seconds.items()
        },
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{figures['work']} on {figures['hardware']}",
        f"limit {duration(figures['limit_seconds'])}: {figures['tflop']:.1f} TFLOP at {figures['matmul_gflops']:,.0f} "
        "GFLOP/s, the best matrix product measured",
        f"{'':<12}{'seconds (median, min–max)':<30}{'against cnnsearch':<20}share of the limit",
    ]
    for name, row in figures["rows"].items():
        spread = f"{row['median_seconds']:.1f} ({row['min_seconds']:.1f}–{row['max_seconds']:.1f})"
        ratio, share = row["times_as_long_as_cnnsearch"], row["share_of_limit"]
        lines.append(f"{name:<12}{spread:<30}{f'{ratio:.2f}×':<20}{100 * share:.0f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
