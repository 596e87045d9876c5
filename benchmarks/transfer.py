"""Fine-tuning a ResNet-18: N, the notebook way, and R, a plain Ray Tune script, against this project; with ratios.

    python -m benchmarks.transfer                             2 modes × 4 learning rates at 64×64, 10 epochs
    python -m benchmarks.transfer --epochs 30 --rounds 3

All three train the same trials on the same PNG files, split and number of epochs from the same seeded weights, in
turn, each as a process of its own timed from outside. N is nested loops with a `Dataset` that decodes every image
every epoch, fp32, `.item()` at every step, all cores for one model. R is what Ray's own examples lead a good engineer
to: one core a trial, two at a time, the images loaded by a `DataLoader` inside the trial, a report and a checkpoint
every epoch, default loggers. Both freeze what does not train and run the whole network forward in every step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.notebook import ImageFolder, sweep_command, test, timed, write_folder
from cnnsearch.hardware import detect
from cnnsearch.models.backbones import make
from cnnsearch.spec import Settings
from cnnsearch.sweepfile import load_sweep, to_yaml

MODES = ("head", "last-2-convs")
RATES = (0.003, 0.001, 0.0003, 0.0001)


def main() -> None:
    """Run the three ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="times each way runs, in turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--run", choices=["notebook", "ray"], help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        ways = {"notebook": run_like_a_notebook, "ray": run_with_plain_ray}
        ways[arguments.run](arguments.folder, arguments.mode, arguments.epochs)
        return
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        figures = measure(Path(scratch), arguments.epochs, arguments.rounds)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, epochs: int, rounds: int) -> dict[str, Any]:
    """Seconds of every way and mode."""
    torch.manual_seed(0)
    torch.save(make("resnet18", Settings(model="resnet18"), 1000).state_dict(), folder / "weights.pth")
    seconds: dict[str, dict[str, list[float]]] = {mode: {"notebook": [], "ray": [], "cnnsearch": []} for mode in MODES}
    for mode in MODES:
        space = {"fine_tune": mode, "lr": {"grid": list(RATES)}}
        values = {"train.weights": str(folder / "weights.pth"), "train.epochs": epochs, "run.dashboard": False}
        sweep = load_sweep("part2", values={**values, "stages.transfer.space": space})
        (folder / "sweep.yaml").write_text(to_yaml(sweep), encoding="utf-8")
        if not (folder / "images").exists():
            write_folder(sweep, folder / "images")
        subprocess.run([*sweep_command(folder), "--dry-run"], check=True, stdout=subprocess.DEVNULL)
        for _ in range(rounds):
            for way in ("notebook", "ray"):
                options = ["--run", way, "--mode", mode, "--folder", str(folder), "--epochs", str(epochs)]
                seconds[mode][way].append(timed([sys.executable, "-m", "benchmarks.transfer", *options]))
            with tempfile.TemporaryDirectory() as cache:  # the features too are computed in the time measured
                for kept in ("images", "index", "machines", "weights"):
                    shutil.copytree(cache_folder() / kept, Path(cache) / kept, dirs_exist_ok=True)
                command = ["env", f"CNNSEARCH_CACHE={cache}", *sweep_command(folder)]
                seconds[mode]["cnnsearch"].append(timed(command))
            shutil.rmtree(folder / "results")
    work = f"{len(RATES)} trials a mode, {epochs} epochs, ResNet-18 at 64×64"
    return {"hardware": detect().key, "work": work, "seconds": seconds}


def cache_folder() -> Path:
    """Where this project keeps what it derives."""
    from cnnsearch.data.cache import cache_root

    return cache_root()


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{figures['work']}, on {figures['hardware']}"]
    for mode, ways in figures["seconds"].items():
        ours = statistics.median(ways["cnnsearch"])
        for way, runs in ways.items():
            middle = statistics.median(runs)
            spread = f"{middle:.1f} ({min(runs):.1f}–{max(runs):.1f}) s"
            lines.append(f"{mode:<14}{way:<11}{spread:<26}{middle / ours:.2f}×")
    return "\n".join(lines)


def trial(folder: Path, mode: str, lr: float, epochs: int) -> Iterator[tuple[float, nn.Module]]:
    """One trial the usual way: yields validation accuracy and model after every epoch."""
    train_set, val_set = (ImageFolder(folder / "images" / split, 64) for split in ("train", "val"))
    torch.manual_seed(0)
    model = make("resnet18", Settings(model="resnet18"), 10)
    state = torch.load(folder / "weights.pth", weights_only=True)
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")}, strict=False)
    last = ("fc.",) if mode == "head" else ("fc.", "layer4.1.conv1.", "layer4.1.conv2.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(last)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(epochs):
        model.eval()  # frozen BatchNorm stays as it was learned
        total = 0.0
        for pixels, labels in DataLoader(train_set, 16, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pixels), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        yield test(model, DataLoader(val_set, 16)), model


def run_like_a_notebook(folder: Path, mode: str, epochs: int) -> None:
    """N: one trial after the other."""
    test_set = ImageFolder(folder / "images" / "test", 64)
    for lr in RATES:
        ended = list(trial(folder, mode, lr, epochs))
        print(lr, [accuracy for accuracy, _ in ended], test(ended[-1][1], DataLoader(test_set, 16)))


def run_with_plain_ray(folder: Path, mode: str, epochs: int) -> None:
    """R: a function for Ray Tune."""
    from ray import tune

    def train(config: dict[str, float]) -> None:
        test_set = ImageFolder(folder / "images" / "test", 64)
        for accuracy, model in trial(folder, mode, config["lr"], epochs):
            with tempfile.TemporaryDirectory() as checkpoint:
                torch.save(model.state_dict(), Path(checkpoint) / "model.pt")
                tune.report({"accuracy": accuracy}, checkpoint=tune.Checkpoint.from_directory(checkpoint))
        tune.report({"accuracy": accuracy, "test_accuracy": test(model, DataLoader(test_set, 16))})

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"lr": tune.grid_search(list(RATES))},
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    )
    assert not tuner.fit().errors
    shutil.rmtree(folder / "ray")


if __name__ == "__main__":
    main()
