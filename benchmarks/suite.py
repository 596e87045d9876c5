"""Run rivals and this project on workloads, in turn, and put the figures together."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks import figures as arithmetic
from benchmarks.figures import OURS, Run
from benchmarks.images import write_folder
from benchmarks.limit import flops, matmul_rate
from benchmarks.processes import Finished, memory_measure, run
from benchmarks.rivals.task import Outcome, Task
from benchmarks.workloads import Scale, Size, Workload, describe, make_sweep, settings_of
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.results.tables import load
from cnnsearch.spec.load import to_yaml
from cnnsearch.spec.settings import Settings
from cnnsearch.training.compute.device import probe_precision

FIRST = "cnnsearch-first"
"""This project with an empty cache: it also times its steps, which it does once on a machine."""


@dataclass
class Bench:
    """One workload at one size, prepared: images and weights are written."""

    workload: Workload
    size: Size
    folder: Path
    trials: tuple[Settings, ...]
    precision: str

    @classmethod
    def prepare(cls, workload: Workload, scale: Scale, folder: Path) -> Bench:
        """Write what the rivals read."""
        size = workload.sizes[scale]
        write_folder(folder / "images", size.images, size.image_size)
        weights = folder / "weights.pth" if workload.fine_tunes else None
        if weights is not None:
            torch.save(seeded_resnet18(), weights)
        sweep = make_sweep(workload.name, size, folder / "images", weights)
        (folder / "sweep.yaml").write_text(to_yaml(sweep), encoding="utf-8")
        precision = workload.precision or probe_precision("cpu")
        return cls(workload, size, folder, settings_of(sweep), precision)

    @property
    def weights(self) -> Path | None:
        """The file of the ResNet-18's weights."""
        file = self.folder / "weights.pth"
        return file if file.exists() else None

    @property
    def slots(self) -> int:
        """Trials at once."""
        return len(detect().gpus) or detect().cores

    def sample(self, rival: str) -> tuple[Settings, ...]:
        """The trials a rival really runs."""
        if rival not in self.size.samples:
            return self.trials
        count, epochs = self.size.samples[rival]
        distinct = list({settings.model_dump_json(): settings for settings in self.trials}.values())
        chosen = distinct if count == len(distinct) else random.Random(0).sample(distinct, count)
        return tuple(settings.model_copy(update={"epochs": epochs}) for settings in chosen)

    def flop(self) -> float:
        """Operations of all trials."""
        images = {split: 10 * count for split, count in self.size.images.items()}
        return flops(self.trials, images, classes=10)


def seeded_resnet18() -> dict[str, Any]:
    """Random weights of a ResNet-18, its BatchNorm statistics fitting them: frozen layers are never in training."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18().train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # plain averages
    with torch.no_grad():
        model(torch.randn(16, 3, 64, 64))
    state: dict[str, Any] = model.state_dict()
    return state


def run_rival(bench: Bench, rival: str) -> Run:
    """One run of a rival, its answer checked."""
    trials = bench.sample(rival)
    sampled = trials != bench.trials
    scratch = bench.folder / "scratch"
    scratch.mkdir()
    task, answer = bench.folder / "task.json", bench.folder / "answer.json"
    answer.unlink(missing_ok=True)
    Task(bench.folder / "images", bench.weights, bench.precision, scratch, trials).write(task)
    command = [sys.executable, "-m", f"benchmarks.rivals.{rival}", str(task), str(answer)]
    done = run(command, bench.folder / "logs" / f"{rival}.txt")
    shutil.rmtree(scratch)
    if done.failure:
        return Run(done.seconds, done.peak_bytes, done.failure)
    plain = json.loads(answer.read_text(encoding="utf-8"))
    outcomes = [Outcome(**one) for one in plain["outcomes"]]
    seconds = done.seconds
    if sampled:
        seconds = arithmetic.extrapolated(
            done.seconds,
            plain["work_seconds"],
            outcomes,
            slots=1 if rival == "notebook" else bench.slots,
            trials=len(bench.trials) / len(trials),
            epochs=bench.size.epochs / trials[0].epochs,
        )
    return judged(done, outcomes, trials, seconds, sampled=sampled)


def run_ours(bench: Bench, cache: Path | None, plan: str = "") -> Run:
    """One run of this project.

    Args:
        cache: a cache whose timings of this machine are known; None for an empty one. Images are decoded, and outputs
            of frozen layers computed, in the time measured, as by every rival.
        plan: what `warm_up` gave.
    """
    out = bench.folder / "results"
    with tempfile.TemporaryDirectory(prefix="cnnsearch-cache-") as fresh:
        if cache is not None and (cache / "machines").is_dir():
            shutil.copytree(cache / "machines", Path(fresh) / "machines")
        done = run(sweep_command(bench, out), bench.folder / "logs" / "cnnsearch.txt", {"CNNSEARCH_CACHE": fresh})
    if done.failure:
        result = Run(done.seconds, done.peak_bytes, done.failure)
    else:
        folder = out / bench.workload.name
        result = judged(done, our_outcomes(folder), bench.trials, done.seconds)
        if cache is not None:
            result = replace(result, trials_wall=trials_wall(folder), foretold=foretold(plan))
    shutil.rmtree(out, ignore_errors=True)
    return result


def foretold(plan: str) -> tuple[float, int] | None:
    """Seconds and bytes of memory that a plan says the sweep will take; None where there is no plan."""
    last = (plan.splitlines() or [""])[-1]
    if not last.startswith("{"):
        return None
    facts = json.loads(last)
    return facts["seconds"], facts["memory_bytes"]


def trials_wall(results: Path) -> float:
    """Seconds from the start of the first trial to the last record."""
    records = list(results.glob("trials/*/record.json"))
    began = min(datetime.fromisoformat(json.loads(file.read_bytes())["started_at"]) for file in records)
    return max(file.stat().st_mtime for file in records) - began.timestamp()


def sweep_command(bench: Bench, out: Path) -> list[str]:
    """This project as a command."""
    return [sys.executable, "-m", "cnnsearch.sweep", str(bench.folder / "sweep.yaml"), "--out", str(out)]


def our_outcomes(results: Path) -> list[Outcome]:
    """A results folder as an answer; which trial is which does not matter here."""
    tables = load(results)
    by_trial = dict(list(tables.epochs[tables.epochs["epoch"] > 0].groupby("trial_id")))
    done = tables.trials[tables.trials["status"] == "done"]
    return [
        Outcome(
            number,
            by_trial[row["trial_id"]]["val_accuracy"].tolist(),
            row["test_accuracy"],
            by_trial[row["trial_id"]]["seconds"].tolist(),
            row["seconds"],
        )
        for number, (_, row) in enumerate(done.iterrows())
    ]


def judged(
    done: Finished, outcomes: Sequence[Outcome], trials: Sequence[Settings], seconds: float, *, sampled: bool = False
) -> Run:
    """A run whose process ended well, with what its answer says."""
    problem = arithmetic.check_outcomes(outcomes, len(trials), [settings.epochs for settings in trials])
    if problem:
        return Run(done.seconds, done.peak_bytes, problem)
    trial_seconds = sum(outcome.seconds for outcome in outcomes)
    return Run(seconds, done.peak_bytes, None, arithmetic.mean_accuracy(outcomes), trial_seconds, sampled)


def measure(
    workload: Workload,
    scale: Scale,
    rivals: Sequence[str],
    rounds: int,
    say: Callable[[str], None],
    once: Collection[str] = (),
) -> Any:
    """All rounds of one workload; the figures as they are written to JSON. Rivals in `once` run in the first only."""
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        bench = Bench.prepare(workload, scale, Path(scratch))
        cache = bench.folder / "cache"
        plan = warm_up(bench, cache)
        runs: dict[str, list[Run]] = {rival: [] for rival in rivals}
        rate = matmul_rate()
        for number in range(1, rounds + 1):
            for rival in rivals:
                if rival in once and number > 1:
                    continue
                if rival in (OURS, FIRST):
                    one = run_ours(bench, cache if rival == OURS else None, plan)
                else:
                    one = run_rival(bench, rival)
                runs[rival].append(one)
                say(f"{workload.name}, round {number}, {rival}: {one.failure or f'{one.seconds:.1f} s'}")
            rate = max(rate, matmul_rate())
        flop = bench.flop()
        work = describe(workload, bench.size, len(bench.trials))
        slots = bench.slots
        rows = arithmetic.summarise(arithmetic.reject_implausible(runs), flop=flop, rate=rate, slots=slots)
    return {
        "work": work,
        "scale": scale,
        "precision_of_rivals": bench.precision,
        "tflop": flop / 1e12,
        "matmul_gflops": rate / 1e9,
        "limit_seconds": flop / rate,
        "rows": rows,
    }


def warm_up(bench: Bench, cache: Path) -> str:
    """Time this machine's steps once, as any second sweep on a machine finds it done.

    Returns:
        the plan as it is printed, its JSON last.
    """
    command, log = sweep_command(bench, bench.folder / "results"), bench.folder / "logs" / "warm-up.txt"
    run([*command, "--dry-run", "--json"], log, {"CNNSEARCH_CACHE": str(cache)})
    return log.read_text(encoding="utf-8")


def empty_figures(rounds: int) -> dict[str, Any]:
    """Figures without any workload yet."""
    packages = ("torch", "torchvision", "ray", "cnnsearch")
    return {
        "hardware": detect().key,
        "memory": memory_measure(),
        "rounds": rounds,
        "versions": {name: metadata.version(name) for name in packages},
        "workloads": {},
    }


def save(figures: dict[str, Any], file: Path) -> None:
    """Write figures as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run_suite(
    workloads: Iterable[Workload],
    scale: Scale,
    rivals: Sequence[str],
    rounds: int,
    say: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None] = lambda figures: None,
    once: Collection[str] = (),
) -> dict[str, Any]:
    """Measure workload after workload; `keep` gets the figures after each, so that a long run loses nothing."""
    figures = empty_figures(rounds)
    for workload in workloads:
        figures["workloads"][workload.name] = measure(workload, scale, rivals, rounds, say, once)
        keep(figures)
    return figures
