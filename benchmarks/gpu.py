"""Part 1 whole on a machine with a CUDA GPU: 16 trials of 100 epochs at 64×64, by this project and by others.

    python -m benchmarks.gpu                     this project, and R from three epochs a trial
    python -m benchmarks.gpu --rivals plain_ray tuned_ray notebook --set run.gpus_per_trial=0.25

This project runs everything, dropout stage included. The others run the grid's eight trials for a few epochs, which is
then taken times the epochs and the sixteen trials: they would take hours, and an epoch takes as long as the one before.
The limit is the rate of this GPU's best matrix product, bf16 or fp32, measured in the same run. Memory is the host's.
What the plan picked is printed first (`--set run.gpus_per_trial=1` for one trial a GPU), then what
`benchmarks.gpu_steps` measures, and how many steps a second 1, 2, 4 and 8 trials make that share a GPU
(`--packed 0.25 1` for two widths of the networks; `--packed` for none).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import figures as arithmetic, gpu_steps, show, suite
from benchmarks.__main__ import say
from benchmarks.figures import OURS, Run
from benchmarks.workloads import GRID, Size, Workload, describe
from cnnsearch.execution.machine.hardware import detect
from cnnsearch.spec.load import load_sweep, to_yaml

RIVALS = ("plain_ray", "tuned_ray", "notebook")


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
    options = parser.parse_args(arguments)
    if not detect().gpus:
        print("error: there is no CUDA GPU here; python -m benchmarks measures on a CPU", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="cnnsearch-benchmark-") as scratch:
        bench = prepare(Path(scratch), options)
        cache = bench.folder / "cache"
        plan = suite.warm_up(bench, cache)
        say("plan: " + picked(plan))
        device = measured(options.width)
        for line in gpu_steps.told(device):
            say(line)
        packed = {f"width {width:g}": gpu_steps.packed(width) for width in options.packed}
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
            "step_milliseconds": device.step_milliseconds,
            "convolution_microseconds": device.convolution_microseconds,
            "kernel_microseconds": device.kernel_microseconds,
            "packed_steps_a_second": packed,
            "tflop": flop / 1e12,
            "matmul_gflops": device.rate / 1e9,
            "limit_seconds": flop / device.rate,
            "rows": arithmetic.summarise(runs, flop=flop, rate=device.rate, slots=bench.slots),
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


def measured(width: float) -> gpu_steps.Measured:
    """In a process of its own, which gives the GPU back."""
    command = [sys.executable, "-m", "benchmarks.gpu_steps", "--width", str(width)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return gpu_steps.Measured(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
