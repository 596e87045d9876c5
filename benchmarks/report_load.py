"""Report and tables for very many trials: records are made up, through the package's own writer, and read in the time
measured, by `python -m cnnsearch.report` as a process of its own. There is nothing to compare with.

    python -m benchmarks.report_load                            10,000 trials of 100 epochs: a minute or two
    python -m benchmarks.report_load --trials 1000 --search     settings drawn at random, as a search has them
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Run, summarise
from benchmarks.processes import run
from benchmarks.workloads import Scale
from cnnsearch.planning.plan import make_plan
from cnnsearch.planning.trial import EpochRow, Status, Trial
from cnnsearch.results.folder import Results
from cnnsearch.results.record import Measures, Record
from cnnsearch.spec.load import to_yaml
from cnnsearch.spec.sweep import Sweep

NAME = "report"
SIZES: dict[Scale, tuple[int, int]] = {"tiny": (16, 5), "short": (500, 20), "full": (10_000, 100)}
"""Trials and epochs."""
FINGERPRINT = "f" * 16
CLASSES = tuple(f"class {number}" for number in range(8))
IMAGES = {"train": 400, "val": 160, "test": 229}


def measure(scale: Scale, rounds: int, say: Callable[[str], None]) -> Any:
    """The figures, as `suite.measure` gives them."""
    trials, epochs = SIZES[scale]
    first, again = "tables and report", "report, tables kept"
    runs: dict[str, list[Run]] = {first: [], again: []}
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        folder = Path(scratch) / "results" / NAME
        write_results(folder, trials, epochs)
        for number in range(1, rounds + 1):
            for table in folder.glob("*.parquet"):
                table.unlink()
            for name in (first, again):
                done = run([sys.executable, "-m", "cnnsearch.report", str(folder)], Path(scratch) / "log.txt")
                runs[name].append(Run(done.seconds, done.peak_bytes, done.failure))
                say(f"{NAME}, round {number}, {name}: {done.failure or f'{done.seconds:.1f} s'}")
    rows = summarise(runs, flop=None, rate=1.0, slots=1)
    return {"work": f"{trials:,} trials of {epochs} epochs, read and reported", "scale": scale, "rows": rows}


def write_results(folder: Path, trials: int, epochs: int, *, search: bool = False) -> None:
    """A results folder of a sweep that was never run: a grid, or settings drawn at random."""
    sweep = make_search(trials, epochs) if search else make_sweep(trials, epochs)
    results = Results(folder)
    results.trials_path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = {split: rng.integers(0, len(CLASSES), count) for split, count in IMAGES.items()}
    results.write("sweep.yaml", to_yaml(sweep))
    results.write("data.json", _data(labels))
    results.write("provenance.json", {"runs": [], "choices": {}})
    synced = os.fsync
    os.fsync = lambda file: None  # type: ignore[assignment]  # nobody's work is lost with these
    try:
        for trial in make_plan(sweep, FINGERPRINT, {}).trials.values():
            _write_trial(results, trial, labels, rng)
    finally:
        os.fsync = synced


def make_sweep(trials: int, epochs: int) -> Sweep:
    """A sweep of that many trials, a multiple of 4: two models, two batch sizes, learning rates and seeds."""
    seeds = 10 if trials >= 400 else 1
    rates = np.geomspace(1e-5, 1e-1, trials // (4 * seeds)).tolist()
    space = {
        "model": {"grid": ["plain", "residual"]},
        "lr": {"grid": [float(f"{rate:.4g}") for rate in rates]},
        "batch_size": {"grid": [16, 32]},
    }
    train = {"epochs": epochs}
    stages = [{"name": "grid", "space": space}]
    return Sweep.model_validate({"name": NAME, "train": train, "seeds": list(range(seeds)), "stages": stages})


def make_search(trials: int, epochs: int) -> Sweep:
    """A sweep of that many settings, each with one seed, drawn from a space with ranges."""
    space = {
        "model": {"choice": ["plain", "residual"]},
        "lr": {"loguniform": [1e-5, 0.1]},
        "batch_size": {"choice": [16, 32, 64]},
        "dropout": {"uniform": [0.0, 0.6]},
        "optimizer": {"choice": ["adam", "sgd"]},
        "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": ["sgd"]}},
    }
    stages = [{"name": "search", "search": {"method": "random", "trials": trials}, "space": space}]
    return Sweep.model_validate({"name": NAME, "train": {"epochs": epochs}, "stages": stages})


def _data(labels: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    examples = {
        split: {"names": [f"{split}/{row:04}.png" for row in range(IMAGES[split])], "labels": labels[split].tolist()}
        for split in ("val", "test")
    }
    counts = {split: np.bincount(some, minlength=len(CLASSES)).tolist() for split, some in labels.items()}
    facts = {"source": "made up", "fingerprint": FINGERPRINT, "classes": list(CLASSES), "warnings": [], "weights": []}
    return {**facts, "counts": counts, "examples": examples}


def _write_trial(
    results: Results, trial: Trial, labels: dict[str, NDArray[np.int64]], rng: np.random.Generator
) -> None:
    """Curves that rise and settle, and predictions that are as good as they say."""
    n, skill = trial.settings.epochs, rng.uniform(0.3, 0.8)
    rise = skill * (1 - np.exp(-np.arange(1, n + 1) / (n / 5)))
    accuracy = np.clip(rise + rng.normal(0, 0.02, n), 0.05, 0.95).round(4).tolist()
    rows = [
        EpochRow(epoch, 2.1 - value, min(value * 1.1, 1.0), 2.2 - value, value, trial.settings.lr, 1.0)
        for epoch, value in enumerate(accuracy, start=1)
    ]
    best = max(rows, key=lambda row: row.val_accuracy or 0.0)
    folder = results.trial(trial.id)
    folder.begin(trial, rows)
    predictions, right = {}, {}
    for split in ("val", "test"):
        hit = rng.random(len(labels[split])) < skill
        predicted = np.where(hit, labels[split], rng.integers(0, len(CLASSES), len(hit)))
        right[split] = float((predicted == labels[split]).mean())
        predictions[split, "best"] = (predicted, rng.uniform(0.2, 1.0, len(hit)))
    folder.save_predictions(predictions)
    measures = Measures(val_loss=1.5, val_accuracy=right["val"], test_loss=1.6, test_accuracy=right["test"])
    folder.commit(
        Record.of(
            trial,
            Status.DONE,
            best_epoch=best.epoch,
            train_loss=best.train_loss,
            train_accuracy=best.train_accuracy,
            best=measures,
            parameters=1_000_000,
            epochs_done=n,
            seconds=float(n),
            images_per_second=float(IMAGES["train"]),
            peak_memory_bytes=10**9,
            precision="fp32",
            device="cpu",
            threads=1,
            host="made-up",
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure one size, and print what it costs; 1 where the command failed."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--trials", type=int, default=SIZES["full"][0], help="of a grid a multiple of 40")
    made.add_argument("--epochs", type=int, default=SIZES["full"][1], help="of a trial")
    made.add_argument("--search", action="store_true", help="draw settings at random in place of a grid")
    options = made.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        folder = Path(scratch) / "results" / NAME
        write_results(folder, options.trials, options.epochs, search=options.search)
        print(f"{options.trials:,} trials of {options.epochs} epochs", flush=True)
        for name in ("tables and report", "report, tables kept"):
            before = _cpu_seconds()
            done = run([sys.executable, "-m", "cnnsearch.report", str(folder)], Path(scratch) / "log.txt")
            if done.failure:
                print(f"{name}: {done.failure}")
                return 1
            spent, page = _cpu_seconds() - before, (folder / "report.html").stat().st_size
            told = f"{spent:6.1f} s of CPU {done.seconds:6.1f} s {done.peak_bytes / 1e6:6.0f} MB"
            print(f"{name:<20} {told}   a page of {page / 1e6:.1f} MB", flush=True)
    return 0


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
