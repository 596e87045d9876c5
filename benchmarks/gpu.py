"""Part 1 whole on a machine with a CUDA GPU: 16 trials of 100 epochs at 64×64, by this project and by others.

    python -m benchmarks.gpu                     this project, and R from three epochs a trial
    python -m benchmarks.gpu --rivals plain_ray tuned_ray notebook --set run.gpus_per_trial=0.25

This project runs everything, dropout stage included. The others run the grid's eight trials for a few epochs, which is
then taken times the epochs and the sixteen trials: they would take hours, and an epoch takes as long as the one before.
The limit is the rate of this GPU's best matrix product, bf16 or fp32, measured in the same run. Memory is the host's.
What the plan picked is printed first (`--set run.gpus_per_trial=1` for one trial a GPU), what a training step takes
with its kernels launched one by one and as a CUDA graph, and how many steps a second 1, 2, 4 and 8 trials make that
share a GPU (`--packed 0.25 1` for two widths of the networks; `--packed` for none).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest import mock

import torch

from benchmarks import figures as arithmetic
from benchmarks import show, suite
from benchmarks.__main__ import say
from benchmarks.figures import OURS, Run
from benchmarks.limit import matmul_rate
from benchmarks.workloads import GRID, Size, Workload, describe
from cnnsearch.graphs import RECORDERS
from cnnsearch.hardware import detect
from cnnsearch.models.build import initial_model
from cnnsearch.pixels import Pixels
from cnnsearch.spec import Settings
from cnnsearch.sweepfile import load_sweep, to_yaml
from cnnsearch.train import TrainingState, train

RIVALS = ("plain_ray", "tuned_ray", "notebook")
STEPS = 50
"""Of an epoch in which steps are timed."""
PACKED_SECONDS = 4.0
"""How long trials that share a GPU are timed."""


def main(arguments: list[str] | None = None) -> int:
    """0 where all went well, 1 where something failed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=["plain_ray"], metavar="NAME")
    parser.add_argument("--sampled-epochs", type=int, default=3, help="epochs that rivals really run (default: 3)")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of a trial (default: 100)")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels (default: 1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change this project's sweep")
    parser.add_argument("--rounds", type=int, default=1, help="times each runs, in turn (default: 1)")
    parser.add_argument("--packed", nargs="*", type=float, default=[1.0], metavar="WIDTH", help="(default: 1)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="where gpu.json goes")
    parser.add_argument("--device-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not detect().gpus:
        print("error: there is no CUDA GPU here; python -m benchmarks measures on a CPU", file=sys.stderr)
        return 2
    if options.device_only:
        print(json.dumps({"rate": matmul_rate("cuda"), "steps": step_milliseconds(options.width)}))
        return 0
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        bench = prepare(Path(scratch), options)
        cache = bench.folder / "cache"
        plan = suite.warm_up(bench, cache)
        say("plan: " + picked(plan))
        rate, steps = measured(options.width)
        for name, (launched, replayed) in steps.items():
            say(f"a step of {name}: {launched:.3f} ms launched, {replayed:.3f} ms as a graph")
        packed = {f"width {width:g}": packed_steps(width) for width in options.packed}
        for name, found in packed.items():
            each = ", ".join(f"{rate:.0f} from {trials}" for trials, rate in found.items())
            say(f"steps a second of trials that share a GPU, {name}: {each}")
        runs: dict[str, list[Run]] = {name: [] for name in (*options.rivals, OURS)}
        for number in range(1, options.rounds + 1):
            for name, some in runs.items():
                some.append(suite.run_ours(bench, cache, plan) if name == OURS else suite.run_rival(bench, name))
                say(f"round {number}, {name}: {some[-1].failure or f'{some[-1].seconds:.1f} s'}")
        flop = bench.flop()
        figures = suite.empty_figures(options.rounds)
        figures["workloads"]["part1"] = {
            "work": describe(bench.workload, bench.size, len(bench.trials)),
            "plan": picked(plan),
            "step_milliseconds": steps,
            "packed_steps_a_second": packed,
            "tflop": flop / 1e12,
            "matmul_gflops": rate / 1e9,
            "limit_seconds": flop / rate,
            "rows": arithmetic.summarise(runs, flop=flop, rate=rate, slots=bench.slots),
        }
    suite.save(figures, options.out / "gpu.json")
    print(show.head(figures))
    print(show.table("part1", figures["workloads"]["part1"]))
    return int(any("failed" in row for row in figures["workloads"]["part1"]["rows"].values()))


def prepare(folder: Path, options: argparse.Namespace) -> suite.Bench:
    """Part 1 whole, on a folder of images.

    The dropout stage's trials are counted as the grid's once more: which settings they continue is not known before,
    and on average they cost the same.
    """
    # bf16: asking the probe would leave a CUDA context in this process, and the memory it takes.
    workload = Workload("part1", "part 1 whole on a GPU", {"full": Size(64, options.epochs, GRID)}, precision="bf16")
    workload = workload.with_options(width=options.width, epochs=None)
    bench = suite.Bench.prepare(workload, "full", folder)
    values = [
        f"data.source={folder / 'images'}",
        f"train.epochs={options.epochs}",
        f"train.width={options.width}",
        "run.dashboard=false",
    ]
    sweep = load_sweep("part1", values=[*values, *options.set])
    (folder / "sweep.yaml").write_text(to_yaml(sweep), encoding="utf-8")
    samples = {rival: (len(bench.trials), options.sampled_epochs) for rival in RIVALS}
    return replace(bench, size=replace(bench.size, samples=samples), trials=bench.trials * 2)


def picked(plan: str) -> str:
    """How trials share the GPUs, from a plan as it is printed; its last line where it has none, which is the error."""
    lines = plan.strip().splitlines() or ["no plan"]
    return next((line.removeprefix("on").strip() for line in lines if line.startswith("on ")), lines[-1])


def measured(width: float) -> tuple[float, dict[str, list[float]]]:
    """Operations a second of a matrix product, and `step_milliseconds`: in a process that gives the GPU back."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device-only", "--width", str(width)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["rate"], answer["steps"]


def step_milliseconds(width: float) -> dict[str, list[float]]:
    """Model and batch size -> milliseconds of a training step in bf16 at 64×64: launched one by one, and replayed."""
    found = {}
    for model, batch_size in itertools.product(("plain", "residual"), (16, 32)):
        settings = Settings(model=model, batch_size=batch_size, width=width, epochs=4, lr=1e-9)
        with mock.patch.dict(RECORDERS, clear=True):
            launched = step_seconds(settings, "cuda")
        found[f"{model}, batch {batch_size}"] = [1e3 * launched, 1e3 * step_seconds(settings, "cuda")]
    return found


def step_seconds(settings: Settings, device: str) -> float:
    """Seconds of a training step in the fastest epoch, on noise."""
    state, pixels = noise(settings, device)
    return min(row.seconds for row in train(state, pixels, settings, precision="bf16")) / STEPS


def packed_steps(width: float) -> dict[int, float]:
    """Trials that share a GPU -> training steps a second of all of them, each `residual` in batches of 16."""
    found = {}
    context = multiprocessing.get_context("spawn")
    for trials in (1, 2, 4, 8):
        ready = context.Barrier(trials)
        with context.Pool(trials, initializer=_share, initargs=(ready,)) as pool:
            found[trials] = sum(pool.map(_packed_rate, [width] * trials, chunksize=1))
    return found


def _share(ready: Barrier) -> None:
    global _READY
    _READY = ready


_READY: Barrier | None = None


def _packed_rate(width: float) -> float:
    """Steps a second of one trial, from when all are ready."""
    settings = Settings(model="residual", batch_size=16, width=width, epochs=100_000, lr=1e-9)
    state, pixels = noise(settings, "cuda")
    epochs = train(state, pixels, settings, precision="bf16")
    for _ in range(2):
        next(epochs)
    assert _READY is not None
    _READY.wait(timeout=120)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < PACKED_SECONDS:
        next(epochs)
        done += STEPS
    return done / (time.perf_counter() - start)


def noise(settings: Settings, device: str) -> tuple[TrainingState, Pixels]:
    """A model and images for epochs of so many full batches."""
    rows = torch.arange(STEPS * settings.batch_size, device=device)
    shape = (len(rows), settings.image_size, settings.image_size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    middle, spread = torch.full((3,), 127.5, device=device), torch.full((3,), 73.9, device=device)
    pixels = Pixels(images, rows % 10, {"train": rows, "val": rows[:1]}, middle, spread)
    return TrainingState.start(initial_model(settings, 10, device), settings), pixels


if __name__ == "__main__":
    sys.exit(main())
