"""What the plan says before it starts beside what then comes: seconds and memory of shipped sweeps.

    python -m benchmarks.estimates                        the quick profiles, a few minutes
    python -m benchmarks.estimates --sweeps part1 -- --profile quick --set train.epochs=4

Each sweep is planned with this machine's steps timed before, as any second sweep on a machine finds it, and then run in
a fresh cache with these timings. part2 starts from seeded weights, so that nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.processes import run
from benchmarks.suite import seeded_resnet18

SWEEPS = ("part1", "part2", "tune")
QUICK = ("--profile", "quick")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 where a command failed."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--sweeps", nargs="+", default=list(SWEEPS), help="names, or paths of sweep files")
    made.add_argument("more", nargs="*", default=list(QUICK), help="what else each command gets, after --")
    options = made.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory(prefix="cnnsearch-estimates-") as scratch:
        folder = Path(scratch)
        torch.save(seeded_resnet18(), folder / "weights.pth")
        for sweep in options.sweeps:
            own = ["--set", f"train.weights={folder / 'weights.pth'}"] if sweep == "part2" else []
            line = compare([sweep, *options.more, *own], folder / Path(sweep).stem)
            failed |= line is None
            print(f"{sweep:<12} {line or 'failed'}", flush=True)
    return int(failed)


def compare(arguments: list[str], folder: Path) -> str | None:
    """Plan and run one sweep in a folder of its own; its figures in a line, or None where a command failed."""
    command = [sys.executable, "-m", "cnnsearch.sweep", *arguments, "--json", "--out"]
    env = {"CNNSEARCH_CACHE": str(folder / "planned")}
    planned, told = folder / "plan.txt", folder / "run.txt"
    for _ in range(2):  # the first times the steps, which the second need not
        if run([*command, str(folder / "dry"), "--dry-run"], planned, env).failure:
            return None
    plan = json.loads(planned.read_text(encoding="utf-8").splitlines()[-1])
    shutil.copytree(folder / "planned" / "machines", folder / "fresh" / "machines")
    done = run([*command, str(folder / "out")], told, {"CNNSEARCH_CACHE": str(folder / "fresh")})
    if done.failure:
        return None
    seconds = beside(plan["seconds"], done.seconds, "s", 1)
    return f"{seconds}   {beside(plan['memory_bytes'], done.peak_bytes, 'GB', 1e9)}"


def beside(said: float, came: float, unit: str, size: float) -> str:
    """`said 61.0, came 58.2 s (+5 %)`: by how much the plan was over."""
    return f"said {said / size:.1f}, came {came / size:.1f} {unit} ({100 * (said / came - 1):+.0f} %)"


if __name__ == "__main__":
    sys.exit(main())
