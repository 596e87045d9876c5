"""Compare this project with other ways of doing the same sweeps: seconds, ratios, share of the machine, memory.

    python -m benchmarks                                        every workload, every rival, three rounds: hours
    python -m benchmarks --workloads grid-32 --width 0.25       one workload, a quarter of the width
    python -m benchmarks --scale short --rounds 1               minutes

Every rival trains the same trials on the same images, splits and number of epochs, in turn, each as a process of its
own timed from outside. One that fails, or whose trials, epochs or accuracies are not those of the others, is shown as
failed.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from benchmarks import report_load, show, suite
from benchmarks.figures import OURS
from benchmarks.workloads import ALL_RIVALS, SCALES, WORKLOADS

EVERYTHING = (*WORKLOADS, report_load.NAME)
RUNNERS = (*ALL_RIVALS, OURS, suite.FIRST)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write figures.json and figures.png; 1 where anything failed."""
    options = parser().parse_args(arguments)
    workloads = [
        WORKLOADS[name].with_options(width=options.width, epochs=options.epochs)
        for name in options.workloads
        if name in WORKLOADS
    ]
    file = options.out / "figures.json"
    keep = functools.partial(suite.save, file=file)
    figures = suite.run_suite(workloads, options.scale, options.rivals, options.rounds, say, keep, options.once)
    if report_load.NAME in options.workloads:
        figures["workloads"][report_load.NAME] = report_load.measure(options.scale, options.rounds, say)
        keep(figures)
    show.plot(figures, options.out / "figures.png")
    print(show.head(figures))
    for name, measured in figures["workloads"].items():
        print(show.table(name, measured))
    print(f"\n{options.out}/figures.json, figures.png")
    return int(any("failed" in row for one in figures["workloads"].values() for row in one["rows"].values()))


def say(line: str) -> None:
    """Progress, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--workloads", nargs="+", choices=EVERYTHING, default=list(EVERYTHING), metavar="NAME")
    made.add_argument("--rivals", nargs="+", choices=RUNNERS, default=[*ALL_RIVALS, OURS], metavar="NAME")
    made.add_argument("--scale", choices=SCALES, default="full", help="size of the work (default: full)")
    made.add_argument("--rounds", type=int, default=3, help="times each rival runs, in turn (default: 3)")
    made.add_argument(
        "--once", nargs="*", choices=RUNNERS, default=[], metavar="NAME", help="rivals run in round 1 only"
    )
    made.add_argument("--width", type=float, help="factor on the channels of part 1's networks")
    made.add_argument("--epochs", type=int, help="epochs of every trial")
    made.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="where figures go")
    made.epilog = f"workloads: {', '.join(EVERYTHING)}\nrivals: {', '.join(RUNNERS)}"
    return made


if __name__ == "__main__":
    sys.exit(main())
